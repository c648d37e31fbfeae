//! The terms of a group's batches, kept in memory: one number for each leadership.

use std::collections::VecDeque;

use crate::types::{BatchIndex, LogStart, Term, TermRun};

/// Sixteen bytes for each leadership that sealed a batch of the log. An election takes some hundred milliseconds at least,
/// and what has left the log is forgotten, so a log that keeps three days has some megabytes of them if its group never
/// finds rest, and a handful otherwise.
#[derive(Debug)]
pub(super) struct TermRuns {
    start: LogStart,
    /// Ascending by both; the first begins with the batch behind the start.
    runs: VecDeque<TermRun>,
}

impl TermRuns {
    /// # Panics
    /// If the runs are not those of a log that begins at `start`.
    pub(super) fn new(start: LogStart, runs: Vec<TermRun>) -> TermRuns {
        let begin = runs.first().map(|run| run.first);
        assert!(
            begin.is_none_or(|first| first == start.index.next()),
            "terms from {begin:?} behind {start:?}"
        );
        let is_ascending =
            runs.windows(2).all(|pair| pair[0].first < pair[1].first && pair[0].term < pair[1].term);
        assert!(is_ascending, "terms out of order: {runs:?}");
        TermRuns { start, runs: runs.into() }
    }

    pub(super) fn start(&self) -> LogStart {
        self.start
    }

    /// One more batch.
    pub(super) fn push(&mut self, index: BatchIndex, term: Term) {
        if self.runs.back().is_none_or(|last| last.term != term) {
            self.runs.push_back(TermRun { first: index, term });
        }
    }

    /// The batches from `index` on are gone.
    pub(super) fn cut(&mut self, index: BatchIndex) {
        while self.runs.back().is_some_and(|last| last.first >= index) {
            self.runs.pop_back();
        }
    }

    /// The batches in front of `start` are gone.
    pub(super) fn begin_behind(&mut self, start: LogStart) {
        let first = start.index.next();
        while self.runs.get(1).is_some_and(|second| second.first <= first) {
            self.runs.pop_front();
        }
        if let Some(oldest) = self.runs.front_mut() {
            oldest.first = oldest.first.max(first);
        }
        self.start = start;
    }

    /// Of a batch from the one in front of the log's first on; those behind the last have that of the last.
    pub(super) fn term_of(&self, index: BatchIndex) -> Option<Term> {
        if index == self.start.index {
            return Some(self.start.term);
        }
        let behind = self.runs.partition_point(|run| run.first <= index);
        behind.checked_sub(1).map(|nth| self.runs[nth].term)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs() -> TermRuns {
        let mut runs = TermRuns::new(LogStart::default(), Vec::new());
        for (index, term) in [(1, 1), (2, 1), (3, 4), (4, 4), (5, 4), (6, 9)] {
            runs.push(BatchIndex(index), Term(term));
        }
        runs
    }

    fn terms(runs: &TermRuns) -> Vec<Option<u64>> {
        (0..=6).map(|index| runs.term_of(BatchIndex(index)).map(|term| term.0)).collect()
    }

    #[test]
    fn each_batch_has_the_term_of_its_run() {
        assert_eq!(terms(&runs()), [0, 1, 1, 4, 4, 4, 9].map(Some));
    }

    #[test]
    fn a_cut_takes_runs_that_begin_behind_it() {
        let mut runs = runs();
        runs.cut(BatchIndex(5));
        runs.push(BatchIndex(5), Term(7));
        assert_eq!(terms(&runs), [0, 1, 1, 4, 4, 7, 7].map(Some));
        runs.cut(BatchIndex(3));
        assert_eq!(runs.runs.len(), 1);
        runs.cut(BatchIndex(1));
        assert_eq!(terms(&runs), [Some(0), None, None, None, None, None, None]);
    }

    #[test]
    fn runs_in_front_of_the_start_are_forgotten() {
        let mut runs = runs();
        let start =
            |index, term| LogStart { index: BatchIndex(index), term: Term(term), ..LogStart::default() };
        runs.begin_behind(start(3, 4));
        assert_eq!(terms(&runs), [None, None, None, Some(4), Some(4), Some(4), Some(9)]);
        runs.begin_behind(start(5, 4));
        assert_eq!(terms(&runs), [None, None, None, None, None, Some(4), Some(9)]);
        assert_eq!(runs.runs.len(), 1);
        runs.begin_behind(start(6, 9));
        assert_eq!(runs.term_of(BatchIndex(6)), Some(Term(9)));
    }

    #[test]
    #[should_panic(expected = "terms out of order")]
    fn terms_that_go_back_are_a_bug() {
        let run = |first, term| TermRun { first: BatchIndex(first), term: Term(term) };
        TermRuns::new(LogStart::default(), vec![run(1, 2), run(4, 1)]);
    }
}
