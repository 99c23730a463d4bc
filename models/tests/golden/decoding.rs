//! The decoder: rows do not depend on each other, on threads or on when they came, and what cannot
//! be answered is said.

use std::ops::ControlFlow;
use std::sync::Arc;

use models::ModelError;
use models::decode::{
    Batch, Decoder, Ended, Generation, Progress, Request, Sampling, TextStream, TokenMask,
};
use models::gguf::Gguf;
use models::kernels::Isa;
use models::lora::{Adapter, LoraConfig};
use models::weights::Weights;
use models::{Model, tiny};

/// A random model of single bytes; its file stays until the test ends.
fn model() -> (tempfile::TempDir, Model) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.gguf");
    tiny::write(&path, 5).unwrap();
    let model = Model::load(&path).unwrap();
    (dir, model)
}

fn weights() -> Arc<Weights> {
    let (dir, _) = model();
    let mut file = Gguf::open(&dir.path().join("tiny.gguf")).unwrap();
    Arc::new(Weights::read(file.config().unwrap(), &mut file).unwrap())
}

/// An adapter whose B is not zero.
fn adapter(weights: &Weights, seed: u64) -> Adapter {
    let modules = weights.config.architecture.modules().to_vec();
    let config = LoraConfig { r: 4, alpha: 8.0, modules, ..Default::default() };
    let mut adapter = Adapter::fresh(&config, &weights.config, seed);
    let mut draw = models::rng::stream(seed, "test", 0);
    for pair in adapter.pairs.values_mut() {
        let count = pair.b.len();
        pair.b = models::rng::uniform(&mut draw, 0.3, count);
    }
    adapter
}

/// Prompts of many lengths; every other begins with the same 150 tokens.
fn prompt(i: usize) -> Vec<u32> {
    let shared = (0..150).map(|j| (j * 7 % 250 + 3) as u32);
    let own = (0..5 + i * 37 % 190).map(|j| ((i * 31 + j * 13) % 250 + 3) as u32);
    if i.is_multiple_of(2) { shared.chain(own).collect() } else { own.collect() }
}

fn request(i: usize) -> Request {
    let sampling = match i % 3 {
        0 => Sampling::default(),
        _ => Sampling { temperature: 0.9, top_p: 0.95, seed: i as u64, ..Default::default() },
    };
    Request {
        prompt: prompt(i),
        max_new: 6 + i % 5,
        sampling,
        adapter: [None, Some(0), Some(1)][i % 3],
        logprobs: Some(2),
        ..Default::default()
    }
}

fn decoder(weights: &Arc<Weights>, isa: Isa) -> Decoder {
    let mut decoder = Decoder::new(Arc::clone(weights), 1024).by(isa);
    for seed in [1, 2] {
        decoder.add_adapter(&adapter(weights, seed)).unwrap();
    }
    decoder
}

fn quiet(_: Progress<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn step_all(batch: &mut Batch<'_>, answers: &mut [Option<Generation>], order: &[usize]) {
    batch.step(&mut |what| {
        if let Progress::Done { row, answer } = what {
            answers[order[row]] = Some(answer.clone());
        }
        ControlFlow::Continue(())
    });
}

#[test]
fn a_row_does_not_depend_on_the_batch_the_threads_or_when_it_came() {
    let weights = weights();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_here()) {
        let decoder = decoder(&weights, isa);
        let alone: Vec<Generation> = (0..32)
            .map(|i| decoder.answer(vec![request(i)], 1, &mut quiet).unwrap().remove(0))
            .collect();
        assert!(alone.iter().any(|one| one.ids != alone[0].ids));
        for (rows, threads) in [(32, 1), (32, 2), (5, 2)] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let requests = (0..32).map(request).collect();
            let together = pool.install(|| decoder.answer(requests, rows, &mut quiet)).unwrap();
            // Tokens and the bits of the logarithms of their probabilities.
            assert_eq!(together, alone, "{isa:?} {rows} {threads}");
        }
        // In another order, and some while others are being answered.
        let order: Vec<usize> = (0..32).map(|i| i * 11 % 32).collect();
        let mut batch = decoder.batch(9).unwrap();
        let mut answers = vec![None; 32];
        for (i, at) in order.iter().enumerate() {
            batch.join(request(*at)).unwrap();
            if i % 4 == 3 {
                step_all(&mut batch, &mut answers, &order);
            }
        }
        while !batch.is_empty() {
            step_all(&mut batch, &mut answers, &order);
        }
        let came: Vec<Generation> = answers.into_iter().flatten().collect();
        assert_eq!(came, alone, "{isa:?}");
    }
}

#[test]
fn few_pages_make_rows_wait_and_too_few_are_said() {
    let weights = weights();
    let plenty = decoder(&weights, Isa::Scalar);
    let want = plenty.answer((0..12).map(request).collect(), 12, &mut quiet).unwrap();
    // A page holds 64 tokens of 2 layers with 2 heads of 8 numbers, keys and values.
    let page = 64 * 2 * 2 * 8 * 2 * 4;
    let tight = decoder(&weights, Isa::Scalar).within(7 * page);
    let got = tight.answer((0..12).map(request).collect(), 12, &mut quiet).unwrap();
    assert_eq!(got, want);
    let small = decoder(&weights, Isa::Scalar).within(3 * page);
    let long = Request { prompt: vec![5; 180], max_new: 20, ..Default::default() };
    let error = small.answer(vec![long], 1, &mut quiet).unwrap_err();
    assert!(matches!(error, ModelError::Pages { tokens: 200, needed: 4, most: 3 }), "{error}");
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_read() {
    let decoder = decoder(&weights(), Isa::Scalar);
    let refused = |request: Request| {
        let mut begun = 0;
        let requests = vec![self::request(0), request];
        let made = decoder.answer(requests, 2, &mut |_| {
            begun += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(begun, 0);
        made.unwrap_err().to_string()
    };
    let with = |prompt: Vec<u32>, max_new| Request { prompt, max_new, ..Default::default() };
    assert!(refused(with(vec![5; 1000], 25)).contains("exceed the context of 1024"));
    assert!(refused(with(vec![5; 1025], 0)).contains("context"));
    assert!(refused(with(vec![5; 10], usize::MAX)).contains("context"));
    assert!(refused(with(vec![], 5)).contains("context"));
    assert!(refused(with(vec![259], 5)).contains("token 259"));
    assert!(refused(Request { adapter: Some(2), ..request(0) }).contains("adapter"));
    let wild = Sampling { top_p: 2.0, ..Default::default() };
    assert!(refused(Request { sampling: wild, ..request(0) }).contains("top_p"));
    // To the last token of the context.
    let full = decoder.answer(vec![with(vec![5; 1000], 24)], 1, &mut quiet).unwrap();
    assert_eq!((full[0].ids.len(), full[0].ended), (24, Ended::Length));
}

#[test]
fn rows_leave_and_are_ended_from_outside() {
    let decoder = decoder(&weights(), Isa::Scalar);
    let want = decoder.answer((0..3).map(request).collect(), 3, &mut quiet).unwrap();
    let mut batch = decoder.batch(2).unwrap();
    let rows: Vec<usize> = (0..3).map(|i| batch.join(request(i)).unwrap()).collect();
    batch.step(&mut quiet);
    batch.step(&mut quiet);
    assert_eq!(batch.rows(), (1, 2));
    let left = batch.leave(rows[0]).unwrap();
    assert_eq!((left.ended, left.ids.as_slice()), (Ended::Left, &want[0].ids[..3]));
    assert!(batch.leave(rows[0]).is_none());
    let waiting = batch.leave(rows[2]).unwrap();
    assert!(waiting.ids.is_empty());
    let mut last = None;
    while !batch.is_empty() {
        batch.step(&mut |what| {
            if let Progress::Done { answer, .. } = what {
                last = Some(answer.clone());
            }
            ControlFlow::Continue(())
        });
    }
    assert_eq!(last.as_ref(), Some(&want[1]));
    let mut told = 0;
    let ended = decoder.answer(vec![request(1)], 1, &mut |what| {
        told += usize::from(matches!(what, Progress::Token { .. }));
        if told == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let ended = ended.unwrap().remove(0);
    assert_eq!((ended.ended, ended.ids.as_slice()), (Ended::Stop, &want[1].ids[..2]));
}

#[test]
fn adapters_apart_answer_as_those_that_are_merged() {
    let weights = weights();
    let apart = decoder(&weights, Isa::Scalar);
    for (i, seed) in [1, 2].into_iter().enumerate() {
        let merged = weights.merged(&adapter(&weights, seed)).unwrap();
        let merged = Decoder::new(Arc::new(merged), 1024).by(Isa::Scalar);
        let request = |adapter| Request { sampling: Sampling::default(), adapter, ..request(3) };
        let a = apart.answer(vec![request(Some(i))], 1, &mut quiet).unwrap().remove(0);
        let b = merged.answer(vec![request(None)], 1, &mut quiet).unwrap().remove(0);
        assert_eq!(a.ids, b.ids);
        for (a, b) in a.logprobs.iter().zip(&b.logprobs) {
            assert!((a.taken - b.taken).abs() < 1e-4, "{a:?} {b:?}");
        }
    }
}

#[test]
fn a_mask_hides_tokens_and_an_end_ends() {
    struct Only(Vec<u32>);
    impl TokenMask for Only {
        fn apply(&mut self, said: &[u32], logits: &mut [f32]) {
            let allowed = self.0[said.len()];
            let hidden = logits.iter_mut().enumerate().filter(|(id, _)| *id as u32 != allowed);
            hidden.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        }
    }
    let decoder = decoder(&weights(), Isa::Scalar);
    let mask = Some(Box::new(Only(vec![70, 71, 2])) as Box<dyn TokenMask>);
    let request = Request { mask, ends: vec![2], max_new: 9, ..request(4) };
    let made = decoder.answer(vec![request], 1, &mut quiet).unwrap().remove(0);
    assert_eq!((made.ids, made.ended), (vec![70, 71], Ended::Stop));
}

#[test]
fn text_is_told_in_whole_characters_and_ends_before_a_stop() {
    let (_dir, model) = model();
    let tokenizer = model.renderer.tokenizer();
    let told = |text: &str, stops: &[&str]| {
        let stops: Vec<String> = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut stream = TextStream::new(tokenizer, &stops);
        let mut pieces = Vec::new();
        for id in tokenizer.encode(text).unwrap() {
            let piece = stream.push(id).unwrap();
            if !piece.is_empty() {
                pieces.push(piece);
            }
            if stream.is_stopped() {
                break;
            }
        }
        pieces.push(stream.finish().unwrap());
        (pieces, stream.is_stopped())
    };
    // Each token is one byte.
    assert_eq!(told("aé", &[]).0, ["a", "é", ""]);
    assert_eq!(told("x\u{1f600}y", &[]).0, ["x", "\u{1f600}", "y", ""]);
    let (pieces, is_stopped) = told("one END two", &["END"]);
    assert_eq!((pieces.concat().as_str(), is_stopped), ("one ", true));
    // What only begins like a stop is told in the end, or as soon as it goes on otherwise.
    let (pieces, is_stopped) = told("one EN", &["END"]);
    assert_eq!((pieces.concat().as_str(), is_stopped), ("one EN", false));
    assert_eq!(pieces.last().unwrap(), "EN");
    assert_eq!(told("EENDx", &["END", "never"]).0.concat(), "E");
    assert_eq!(told("ababac", &["abac"]).0.concat(), "ab");
    // The one that is met first ends the text, though another begins before it.
    assert_eq!(told("abcd", &["abcdef", "c"]).0.concat(), "ab");
    assert_eq!(
        told("never", &["", "x"]),
        (vec!["n", "e", "v", "e", "r", ""].into_iter().map(str::to_owned).collect(), false)
    );
}
