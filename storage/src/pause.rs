//! The pause between a failure and the next try.

/// Off until something fails; then on until it has lasted, by the clock of whoever asks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pause {
    is_on: bool,
    /// Set at the first look at the clock after the failure.
    until_ms: Option<i64>,
}

impl Pause {
    pub(crate) fn begin(&mut self) {
        *self = Pause { is_on: true, until_ms: None };
    }

    pub(crate) fn end(&mut self) {
        *self = Pause::default();
    }

    /// Whether the next try is due.
    pub(crate) fn is_over(&mut self, now_ms: i64, pause_ms: u32) -> bool {
        if !self.is_on {
            return true;
        }
        // The minimum keeps a clock that was set back from stretching the pause.
        let latest = now_ms.saturating_add(pause_ms.into());
        let until_ms = self.until_ms.unwrap_or(latest).min(latest);
        self.until_ms = Some(until_ms);
        now_ms >= until_ms
    }

    /// When the next try is due by time alone.
    pub(crate) fn until_ms(&self) -> Option<i64> {
        self.until_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lasts_from_the_first_look_at_the_clock() {
        let mut pause = Pause::default();
        assert!(pause.is_over(5, 100));
        pause.begin();
        assert_eq!(pause.until_ms(), None);
        assert!(!pause.is_over(10, 100));
        assert_eq!(pause.until_ms(), Some(110));
        assert!(!pause.is_over(109, 100));
        assert!(!pause.is_over(2, 100), "the clock went back: 100 more at most");
        assert!(pause.is_over(102, 100));
        pause.end();
        assert!(pause.is_over(0, 100));
    }
}
