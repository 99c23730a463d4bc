//! Evaluation: deployments answer a suite, and every answer is scored and recorded.

mod arm;
mod run;
mod work;

pub use arm::{Arm, Local, RECORDED, Recorded, cep_factor, find_cep, propose_cep};
pub use run::{EvalWish, Evaluated, eval_started, evaluate, leaked_questions};
pub use work::{Answer, Answered, answer_cases, answers_recorded, case_facts, decoder};
