//! Numbers that look random and are the same in every run with the same seed.

/// SplitMix64, the generator of Steele, Lea and Flood ("Fast splittable pseudorandom number generators", 2014).
///
/// Every seed begins a sequence of its own, so that parts of a plan can be drawn apart from each other.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    pub fn new(seed: u64) -> Random {
        Random { state: seed }
    }

    /// The sequence of one part: neighbouring parts of neighbouring seeds have nothing in common.
    pub fn of_part(seed: u64, part: u64) -> Random {
        Random::new(Random::new(seed).next_u64() ^ Random::new(!part).next_u64())
    }

    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    /// Evenly distributed over `0 < x <= 1`, so that its logarithm exists.
    pub fn next_unit(&mut self) -> f64 {
        const STEPS: f64 = (1u64 << 53) as f64;
        ((self.next_u64() >> 11) + 1) as f64 / STEPS
    }

    /// Exponentially distributed with mean one: the time between the events of a Poisson process.
    pub fn next_exponential(&mut self) -> f64 {
        -self.next_unit().ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_published_sequence() {
        // First outputs of the reference implementation for seed 1234567.
        let mut random = Random::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn units_fill_their_range_evenly_and_never_reach_zero() {
        let mut random = Random::new(1);
        let mut tenths = [0u32; 10];
        for _ in 0..100_000 {
            let unit = random.next_unit();
            assert!(unit > 0.0 && unit <= 1.0, "{unit}");
            tenths[((unit * 10.0) as usize).min(9)] += 1;
        }
        assert!(tenths.iter().all(|count| (9_600..10_400).contains(count)), "{tenths:?}");
    }

    #[test]
    fn parts_do_not_repeat_each_other() {
        let mut first: Vec<u64> = (0..100)
            .flat_map(|seed| (0..100).map(move |part| Random::of_part(seed, part).next_u64()))
            .collect();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first.len(), 10_000);
    }
}
