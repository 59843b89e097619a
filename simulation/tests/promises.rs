//! Ten thousand histories; `rulecast-simulation run` does more.

use std::thread::available_parallelism;

use rulecast_simulation::{run, run_all};

#[test]
fn ten_thousand_histories_keep_every_promise() {
    let jobs = available_parallelism().map_or(1, usize::from);
    if let Err(failure) = run_all(0, 10_000, jobs, |_| {}) {
        let seed = failure.seed;
        panic!(
            "seed {seed}: {}\nSee it again with: cargo run -p rulecast-simulation -- replay {seed} --trace",
            failure.violation
        );
    }
}

#[test]
fn a_seed_tells_the_same_story_again() {
    for seed in 0..30 {
        let (first, second) = (run(seed, true), run(seed, true));
        let differs = first.lines.iter().zip(&second.lines).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(run(1, false).hash, run(2, false).hash, "another seed tells another story");
}
