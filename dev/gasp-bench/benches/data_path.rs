//! The cases of this crate under criterion: `cargo bench -p gasp-bench`.

use std::time::Duration;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (name, make) in gasp_bench::cases("") {
        let Ok(case) = make() else {
            eprintln!("skipped, because it cannot be set up here: {name}");
            continue;
        };
        let mut group = criterion.benchmark_group(name);
        for mut contestant in case.contestants {
            group.bench_function(contestant.name, |bencher| {
                bencher.iter_custom(|count| run(&mut contestant.work, count));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}

/// Runs the work in parts of 32 bits: criterion counts in 64.
fn run(work: &mut dyn FnMut(u32) -> Duration, mut count: u64) -> Duration {
    let mut took = Duration::ZERO;
    while count > 0 {
        let part = u32::try_from(count).unwrap_or(u32::MAX);
        took += work(part);
        count -= u64::from(part);
    }
    took
}
