const DAY_MS: i64 = 86_400_000;

/// A total, and what it was at the beginning of this day and of the day before (`BrokerStats`). Days are those of UTC.
#[derive(Debug)]
pub(in crate::shard) struct Days {
    total: u64,
    this_morning: u64,
    yesterday_morning: u64,
    day: i64,
}

impl Days {
    pub(super) fn new(now_ms: i64) -> Self {
        Days { total: 0, this_morning: 0, yesterday_morning: 0, day: now_ms.div_euclid(DAY_MS) }
    }

    pub(super) fn add(&mut self, count: u64) {
        self.total += count;
    }

    pub(super) fn on_tick(&mut self, now_ms: i64) {
        let day = now_ms.div_euclid(DAY_MS);
        if day > self.day {
            self.day = day;
            self.yesterday_morning = self.this_morning;
            self.this_morning = self.total;
        }
    }

    pub(in crate::shard) fn total(&self) -> u64 {
        self.total
    }

    pub(in crate::shard) fn this_morning(&self) -> u64 {
        self.this_morning
    }

    pub(in crate::shard) fn yesterday_morning(&self) -> u64 {
        self.yesterday_morning
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mornings_are_where_the_days_begin() {
        let mut days = Days::new(DAY_MS - 1);
        days.add(5);
        days.on_tick(DAY_MS - 1);
        assert_eq!((days.total(), days.this_morning()), (5, 0));
        days.on_tick(DAY_MS);
        days.add(2);
        days.on_tick(DAY_MS + 1);
        assert_eq!((days.total(), days.this_morning(), days.yesterday_morning()), (7, 5, 0));
        days.on_tick(2 * DAY_MS);
        assert_eq!((days.total(), days.this_morning(), days.yesterday_morning()), (7, 7, 5));
    }
}
