//! A list that grows without a pause.

/// Grows at its end by chunks of `N`: a push never moves more than one of them, where a vector of a million entries
/// would now and then be copied as a whole, on a thread that others wait for.
#[derive(Debug)]
pub(crate) struct Chunked<T, const N: usize> {
    chunks: Vec<Vec<T>>,
}

impl<T, const N: usize> Default for Chunked<T, N> {
    fn default() -> Chunked<T, N> {
        Chunked { chunks: Vec::new() }
    }
}

impl<T, const N: usize> Chunked<T, N> {
    pub(crate) fn len(&self) -> usize {
        self.chunks.last().map_or(0, |last| (self.chunks.len() - 1) * N + last.len())
    }

    pub(crate) fn push(&mut self, value: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < N => last.push(value),
            _ => self.chunks.push(vec![value]),
        }
    }

    /// Drops the chunk at the end; tells whether there was one.
    pub(crate) fn drop_chunk(&mut self) -> bool {
        self.chunks.pop().is_some()
    }

    pub(crate) fn get(&self, nth: usize) -> Option<&T> {
        self.chunks.get(nth / N)?.get(nth % N)
    }

    pub(crate) fn get_mut(&mut self, nth: usize) -> Option<&mut T> {
        self.chunks.get_mut(nth / N)?.get_mut(nth % N)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flatten()
    }

    /// The entries from the `nth` on, up to the end of their chunk.
    pub(crate) fn chunk_from(&self, nth: usize) -> &[T] {
        self.chunks.get(nth / N).map_or(&[], |chunk| &chunk[(nth % N).min(chunk.len())..])
    }

    /// How many entries, from the first on, satisfy `before`, which holds for a prefix of them.
    pub(crate) fn partition_point(&self, before: impl Fn(&T) -> bool) -> usize {
        let nth = self.chunks.partition_point(|chunk| chunk.last().is_some_and(&before));
        // The last chunk may be shorter than the others.
        (nth * N + self.chunks.get(nth).map_or(0, |chunk| chunk.partition_point(&before))).min(self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_chunk_by_chunk() {
        let mut list = Chunked::<u64, 4>::default();
        (0..9).for_each(|nth| list.push(nth));
        let steps: Vec<_> = (0..4).map(|_| (list.drop_chunk(), list.len())).collect();
        assert_eq!(steps, [(true, 8), (true, 4), (true, 0), (false, 0)]);
    }

    #[test]
    fn reads_as_one_list() {
        let mut list = Chunked::<u64, 4>::default();
        assert_eq!((list.len(), list.get(0), list.partition_point(|_| true)), (0, None, 0));
        for len in 1..=11 {
            list.push(len - 1);
            assert_eq!(list.len() as u64, len);
            assert!(list.iter().copied().eq(0..len));
            for nth in 0..len {
                assert_eq!(list.get(nth as usize), Some(&nth));
                assert_eq!(list.get_mut(nth as usize).copied(), Some(nth));
                assert_eq!(list.chunk_from(nth as usize)[0], nth);
            }
            assert_eq!((list.get(len as usize), list.chunk_from(len as usize)), (None, &[][..]));
            for bound in 0..len + 2 {
                assert_eq!(list.partition_point(|value| *value < bound) as u64, bound.min(len));
            }
        }
    }
}
