use std::io::Write;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::clock::RunTime;

fn streams(ids: &[u32]) -> Vec<StreamId> {
    ids.iter().copied().map(StreamId).collect()
}

#[test]
fn constant_arrivals_are_evenly_spaced_and_end_before_the_end() {
    let schedule = Schedule::constant(5_000, Duration::from_secs(2)).unwrap();
    assert_eq!(schedule.total(), 10_000);
    let due: Vec<_> = schedule.share(1, &streams(&[0])).map(|planned| planned.due.as_nanos()).collect();
    assert_eq!(due.len(), 10_000);
    assert_eq!(&due[..3], &[0, 200_000, 400_000]);
    assert_eq!(*due.last().unwrap(), 1_999_800_000);
}

#[test]
fn a_rate_that_does_not_divide_a_second_does_not_drift() {
    let schedule = Schedule::constant(3, Duration::from_secs(1_000_000)).unwrap();
    assert_eq!(schedule.due(3 * 999_999), RunTime::from_nanos(999_999_000_000_000));
}

#[test]
fn streams_take_turns() {
    let schedule = Schedule::constant(1_000, Duration::from_millis(7)).unwrap();
    let taken: Vec<_> =
        schedule.share(3, &streams(&[0, 2])).map(|p| (p.stream.0, p.due.as_nanos() / 1_000_000)).collect();
    assert_eq!(taken, [(0, 0), (2, 2), (0, 3), (2, 5), (0, 6)]);
}

#[test]
fn impossible_plans_are_refused_by_name() {
    assert_eq!(Schedule::constant(0, Duration::from_secs(1)), Err(ScheduleError::Rate(0)));
    assert_eq!(
        Schedule::constant(RATE_MAX + 1, Duration::from_secs(1)),
        Err(ScheduleError::Rate(RATE_MAX + 1))
    );
    assert_eq!(Schedule::constant(1, Duration::ZERO), Err(ScheduleError::Empty));
    assert_eq!(
        Schedule::constant(1_000_000, Duration::from_secs(5_000)),
        Err(ScheduleError::TooMany { planned: 5_000_000_000 })
    );
}

#[test]
fn no_streams_means_no_messages() {
    let schedule = Schedule::constant(10, Duration::from_secs(1)).unwrap();
    assert_eq!(schedule.share(4, &[]).count(), 0);
}

fn millis(schedule: &Schedule) -> Vec<u64> {
    schedule.share(1, &streams(&[0])).map(|planned| planned.due.as_nanos() / 1_000_000).collect()
}

#[test]
fn bursts_keep_the_average_and_pause_between() {
    let (on, off) = (Duration::from_millis(100), Duration::from_millis(900));
    let schedule = Schedule::bursts(5, on, off, Duration::from_secs(2)).unwrap();
    assert_eq!(schedule.total(), 10);
    assert_eq!(millis(&schedule), [0, 20, 40, 60, 80, 1_000, 1_020, 1_040, 1_060, 1_080]);

    let at_once =
        Schedule::bursts(3, Duration::ZERO, Duration::from_millis(500), Duration::from_secs(2)).unwrap();
    assert_eq!(millis(&at_once), [0, 0, 500, 1_000, 1_000, 1_500]);
    let no_period = Schedule::bursts(3, Duration::ZERO, Duration::ZERO, Duration::from_secs(2));
    assert!(matches!(no_period, Err(ScheduleError::BurstPeriod { .. })));
}

#[test]
fn a_ramp_climbs_from_one_rate_to_the_other_and_warms_up_with_the_first() {
    let second = Duration::from_secs(1);
    let schedule = Schedule::ramp(1_000, 3_000, second, 10 * second).unwrap();
    assert_eq!(schedule.total(), 1_000 + 20_000);
    let due = millis(&schedule);
    // Messages within each second; of the n-th after the warm-up, 1,000 + 200 n and half of the climb.
    let within = |second: u64| due.iter().filter(|at| **at / 1_000 == second).count();
    let expected: Vec<usize> = std::iter::once(1_000).chain((0..10).map(|n| 1_100 + 200 * n)).collect();
    let found: Vec<usize> = (0..11).map(within).collect();
    assert!(found.iter().zip(&expected).all(|(found, expected)| found.abs_diff(*expected) <= 1), "{found:?}");

    let down = Schedule::ramp(100, 0, Duration::ZERO, 10 * second).unwrap();
    assert_eq!(down.total(), 500);
    let due = millis(&down);
    assert_eq!(due.iter().filter(|at| **at < 5_000).count(), 375);
    let from_nothing = Schedule::ramp(0, 100, second, 10 * second).unwrap();
    assert_eq!((from_nothing.total(), millis(&from_nothing)[0]), (500, 1_000));
}

#[test]
fn steps_have_equal_lengths_and_a_step_of_nothing_is_a_pause() {
    let second = Duration::from_secs(1);
    let schedule = Schedule::steps(&[2, 0, 4], second, 3 * second).unwrap();
    assert_eq!(millis(&schedule), [0, 500, 1_000, 1_500, 3_000, 3_250, 3_500, 3_750]);
    assert_eq!(schedule.total(), 8);
    assert_eq!(Schedule::steps(&[0, 0], second, second), Err(ScheduleError::Empty));
    assert_eq!(Schedule::steps(&[], second, second), Err(ScheduleError::Empty));
    assert_eq!(Schedule::steps(&[1, RATE_MAX + 1], second, second), Err(ScheduleError::Rate(RATE_MAX + 1)));
}

#[test]
fn a_trace_is_sent_as_it_was_recorded() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "0.001\n0.002\n0.002\n0.5").unwrap();
    let schedule = Schedule::trace(file.path(), 0.5, Duration::from_millis(500)).unwrap();
    assert_eq!(millis(&schedule), [2, 4, 4]);
    let missing = Schedule::trace(Path::new("no such file"), 1.0, Duration::from_secs(1)).unwrap_err();
    assert!(missing.to_string().starts_with("trace no such file: No such file"), "{missing}");
}

/// Largest distance between the distribution of `gaps` and the exponential one (Kolmogorov and Smirnov).
fn distance_from_exponential(mut gaps: Vec<f64>, mean: f64) -> f64 {
    gaps.sort_by(f64::total_cmp);
    let count = gaps.len() as f64;
    let distance = |(at, gap): (usize, &f64)| {
        let expected = 1.0 - (-gap / mean).exp();
        (expected - at as f64 / count).abs().max((expected - (at + 1) as f64 / count).abs())
    };
    gaps.iter().enumerate().map(distance).fold(0.0, f64::max)
}

#[test]
fn poisson_arrivals_have_exponential_gaps_per_stream_and_together() {
    let gaps = |due: Vec<u64>| due.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect::<Vec<_>>();
    let due = |share: Share| share.map(|planned| planned.due.as_nanos()).collect::<Vec<_>>();
    for seed in [0, 1, 77] {
        let schedule = Schedule::poisson(1_000, seed, Duration::from_secs(20)).unwrap();
        let together = due(schedule.share(4, &streams(&[0, 1, 2, 3])));
        let deviation = (together.len() as f64 - 20_000.0).abs();
        assert!(deviation < 4.0 * 20_000f64.sqrt(), "seed {seed}: {} messages", together.len());
        let alone = due(schedule.share(4, &streams(&[2])));
        for (gaps, mean) in [(gaps(together), 1e6), (gaps(alone), 4e6)] {
            // 1.95 / sqrt(n): one sample in a thousand is further away by chance.
            let (distance, bound) =
                (distance_from_exponential(gaps.clone(), mean), 1.95 / (gaps.len() as f64).sqrt());
            assert!(
                distance < bound,
                "seed {seed}: {distance} from an exponential distribution, allowed {bound}"
            );
        }
    }
    let even: Vec<f64> = vec![1e6; 1_000];
    assert!(distance_from_exponential(even, 1e6) > 0.5, "the test can tell a constant rate");
}

#[test]
fn a_seed_is_a_plan() {
    let first = |seed| {
        let schedule = Schedule::poisson(1_000, seed, Duration::from_secs(1)).unwrap();
        schedule.share(2, &streams(&[0, 1])).take(10).collect::<Vec<_>>()
    };
    assert_eq!(first(5), first(5));
    assert_ne!(first(5), first(6));
}

/// Any plan of a few hundred messages.
fn any_schedule() -> impl Strategy<Value = Schedule> {
    let length = || (1u64..400).prop_map(Duration::from_millis);
    let pause = || (0u64..50).prop_map(Duration::from_millis);
    let trace = proptest::collection::vec(0u32..1_000_000_000, 1..300).prop_map(|mut micros| {
        micros.sort_unstable();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        micros.iter().for_each(|at| writeln!(file, "{}", f64::from(*at) / 1e6).unwrap());
        Schedule::trace(file.path(), 1_000.0, Duration::from_secs(2))
    });
    let any = prop_oneof![
        (1u64..5_000, length()).prop_map(|(rate, length)| Schedule::constant(rate, length)),
        (1u64..5_000, any::<u64>(), length())
            .prop_map(|(rate, seed, length)| Schedule::poisson(rate, seed, length)),
        (1u64..5_000, pause(), pause(), length())
            .prop_map(|(rate, on, off, length)| Schedule::bursts(rate, on, off, length)),
        (0u64..5_000, 0u64..5_000, length(), length())
            .prop_map(|(from, to, warmup, length)| Schedule::ramp(from, to, warmup, length)),
        (proptest::collection::vec(0u64..5_000, 1..9), length(), length())
            .prop_map(|(rates, warmup, length)| Schedule::steps(&rates, warmup, length)),
        trace,
    ];
    any.prop_filter_map("no plan", Result::ok)
}

proptest! {
    /// However the streams are dealt to threads, together they send each arrival once and at its own time.
    #[test]
    fn dividing_the_plan_moves_nothing(
        schedule in any_schedule(),
        owners in proptest::collection::vec(0u32..4, 1..9),
    ) {
        let count = owners.len() as u32;
        let all = streams(&(0..count).collect::<Vec<_>>());
        let whole: Vec<_> = schedule.share(count, &all).collect();
        prop_assert!(whole.windows(2).all(|pair| pair[0].due <= pair[1].due));

        let mut parts: Vec<Planned> = Vec::new();
        for thread in 0..4 {
            let own: Vec<_> = all.iter().copied().filter(|s| owners[s.0 as usize] == thread).collect();
            let part: Vec<_> = schedule.share(count, &own).collect();
            prop_assert!(part.windows(2).all(|pair| pair[0].due <= pair[1].due));
            parts.extend(part);
        }
        parts.sort();
        let mut expected = whole.clone();
        expected.sort();
        let (planned, mean) = (whole.len() as f64, schedule.total() as f64);
        prop_assert!((planned - mean).abs() <= 6.0 * mean.sqrt() + 6.0, "{planned} of {mean}");
        prop_assert_eq!(parts, expected);
    }

    /// The count in the plan is the count that is sent, except where chance decides.
    #[test]
    fn what_is_not_drawn_is_counted_exactly(schedule in any_schedule()) {
        if !matches!(schedule.share(1, &streams(&[0])), Share::Drawn(_)) {
            prop_assert_eq!(schedule.share(1, &streams(&[0])).count() as u64, schedule.total());
        }
    }
}
