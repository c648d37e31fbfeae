/// Upper ends of the coarse classes, with RocketMQ's names (`StoreStatsService.PUT_MESSAGE_ENTIRE_TIME_MAX_DESC`); the
/// first holds what took no time, the last everything else.
const CLASSES: [(u64, &str); 13] = [
    (1, "[<=0ms]"),
    (10, "[0~10ms]"),
    (50, "[10~50ms]"),
    (100, "[50~100ms]"),
    (200, "[100~200ms]"),
    (500, "[200~500ms]"),
    (1_000, "[500ms~1s]"),
    (2_000, "[1~2s]"),
    (3_000, "[2~3s]"),
    (4_000, "[3~4s]"),
    (5_000, "[4~5s]"),
    (10_000, "[5~10s]"),
    (u64::MAX, "[10s~]"),
];

/// Steps of the fine classes, from which percentiles are taken: so many milliseconds, so many times.
const STEPS: [(u64, usize); 7] = [(1, 20), (2, 15), (5, 10), (10, 10), (50, 6), (100, 5), (1000, 9)];
const FINE: usize = 76;

/// Percentiles are those of the last whole minute.
const ROLL_MS: i64 = 60_000;

/// How long producers waited for the acknowledgement, from the request on.
#[derive(Debug)]
pub(in crate::shard) struct PutLatency {
    max_ms: u64,
    coarse: [u64; CLASSES.len()],
    fine: [u64; FINE],
    last_fine: [u64; FINE],
    rolled_ms: i64,
}

impl PutLatency {
    pub(super) fn new(now_ms: i64) -> Self {
        PutLatency {
            max_ms: 0,
            coarse: [0; CLASSES.len()],
            fine: [0; FINE],
            last_fine: [0; FINE],
            rolled_ms: now_ms,
        }
    }

    pub(in crate::shard) fn add(&mut self, took_ms: u64) {
        self.max_ms = self.max_ms.max(took_ms);
        self.coarse[CLASSES.partition_point(|(end, _)| took_ms >= *end).min(CLASSES.len() - 1)] += 1;
        self.fine[fine_class(took_ms)] += 1;
    }

    pub(super) fn on_tick(&mut self, now_ms: i64) {
        if now_ms - self.rolled_ms >= ROLL_MS {
            self.rolled_ms = now_ms;
            self.coarse = [0; CLASSES.len()];
            self.last_fine = std::mem::replace(&mut self.fine, [0; FINE]);
        }
    }

    pub(in crate::shard) fn max_ms(&self) -> u64 {
        self.max_ms
    }

    /// How many puts of this minute took how long.
    pub(in crate::shard) fn distribution(&self) -> String {
        let class = |(class, count): (&(u64, &str), &u64)| format!("{}:{count} ", class.1);
        CLASSES.iter().zip(&self.coarse).map(class).collect()
    }

    /// The time that the given part of the last minute's puts stayed within, in milliseconds; between the ends of a
    /// class it is taken to grow evenly (`findPutMessageEntireTimePX`).
    pub(in crate::shard) fn percentile_ms(&self, part: f64) -> f64 {
        let total: u64 = self.last_fine.iter().sum();
        let wanted = (total as f64 * part) as u64;
        let (mut begin_ms, mut passed) = (0, 0);
        for (class, &count) in self.last_fine.iter().enumerate() {
            let end_ms = fine_end_ms(class);
            if wanted <= passed + count {
                let within = if count == 0 { 0.0 } else { (wanted - passed) as f64 / count as f64 };
                return begin_ms as f64 + (end_ms - begin_ms) as f64 * within;
            }
            passed += count;
            begin_ms = end_ms;
        }
        unreachable!("{wanted} is not above the sum {total}")
    }
}

/// The first class whose end is not below it.
fn fine_class(took_ms: u64) -> usize {
    let (mut class, mut end_ms) = (0, 0);
    for (step_ms, times) in STEPS {
        let classes = took_ms.saturating_sub(end_ms).max(1).div_ceil(step_ms);
        if classes <= times as u64 {
            return class + classes as usize - 1;
        }
        class += times;
        end_ms += step_ms * times as u64;
    }
    class
}

/// The last class has no end: it counts as where it begins.
fn fine_end_ms(class: usize) -> u64 {
    let (mut left, mut end_ms) = (class + 1, 0);
    for (step_ms, times) in STEPS {
        let steps = left.min(times);
        end_ms += step_ms * steps as u64;
        left -= steps;
    }
    end_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fine_classes_are_rocketmq_s() {
        assert_eq!(STEPS.iter().map(|(_, times)| times).sum::<usize>() + 1, FINE);
        let rows =
            [(0, 1), (1, 1), (2, 2), (20, 20), (21, 22), (50, 50), (51, 55), (101, 110), (10_000, 10_000)];
        for (took_ms, end_ms) in rows {
            assert_eq!(fine_end_ms(fine_class(took_ms)), end_ms, "{took_ms} ms");
        }
        assert_eq!(fine_class(10_001), FINE - 1);
        assert_eq!(fine_class(u64::MAX), FINE - 1);
    }

    #[test]
    fn distribution_is_of_this_minute_and_percentiles_of_the_last() {
        let mut latency = PutLatency::new(0);
        for took_ms in 0..100 {
            latency.add(took_ms);
        }
        latency.add(20_000);
        assert_eq!(latency.max_ms(), 20_000);
        let text = latency.distribution();
        assert!(text.starts_with("[<=0ms]:1 [0~10ms]:9 [10~50ms]:40 [50~100ms]:50 [100~200ms]:0 "), "{text}");
        assert!(text.ends_with("[10s~]:1 "), "{text}");
        assert_eq!(latency.percentile_ms(0.99), 0.0, "no minute has passed");
        latency.on_tick(60_000);
        let p50 = latency.percentile_ms(0.5);
        assert!((48.0..=52.0).contains(&p50), "{p50}");
        assert_eq!(latency.percentile_ms(1.0), 10_000.0);
        assert!(latency.distribution().starts_with("[<=0ms]:0 "));
    }
}
