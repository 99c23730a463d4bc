//! The writer is killed at random moments, again and again on one ledger.

use std::time::Duration;

use super::times;
use super::writer::{Writer, check, check_all};

#[test]
fn nothing_acknowledged_is_lost_by_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let notebook = dir.path().join("notebook");
    let mut moment = 12_345_u64;
    let mut known = 0;
    for kill in 0..times("LEDGER_KILLS", 30) {
        let group = [1, 1, 50, 300][kill as usize % 4];
        let writer = Writer::start(&notebook, group);
        moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_micros((moment >> 33) % 40_000));
        let acknowledged = writer.kill();
        known = check(&notebook, known, acknowledged.max(known));
    }
    check_all(&notebook, known);
    println!("{known} events survived {} kills", times("LEDGER_KILLS", 30));
}
