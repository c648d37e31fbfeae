//! Coarse cells of a distribution: as many to every octave, so that each is as wide as a fixed part of its values.
//!
//! ```text
//! values   0  1  2 … n-1 │ n … 2n-1 │ 2n … 4n-1 │ 4n … 8n-1 │ …      n = 2^BITS
//! cells    one each      │ one each │ n cells   │ n cells   │
//! ```

/// Cells that values up to `2^octaves` need.
pub const fn count(bits: u32, octaves: u32) -> usize {
    ((octaves - bits + 1) as usize) << bits
}

pub fn index<const BITS: u32>(value: u64) -> usize {
    if value < 1 << BITS {
        return value as usize;
    }
    let shift = value.ilog2() - BITS;
    // The top bit of the shifted value is what counts the first octave.
    ((shift as usize) << BITS) + (value >> shift) as usize
}

/// The smallest value of a cell.
pub fn start<const BITS: u32>(cell: usize) -> u64 {
    if cell < 1 << BITS {
        return cell as u64;
    }
    let shift = (cell >> BITS) - 1;
    ((cell - (shift << BITS)) as u64) << shift
}

/// How many values a cell stands for.
pub fn width<const BITS: u32>(cell: usize) -> u64 {
    1 << (cell >> BITS).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_lies_within_its_cell(value: u64, shift in 0u32..64) {
            let value = value >> shift;
            let cell = index::<5>(value);
            prop_assert!(cell < count(5, 64));
            prop_assert!((0..width::<5>(cell)).contains(&(value - start::<5>(cell))), "{value} in {cell}");
            prop_assert!(width::<5>(cell) <= (value / 32).max(1));
        }
    }

    #[test]
    fn cells_follow_each_other_without_gaps() {
        for cell in 0..count(7, 42) - 1 {
            assert_eq!(start::<7>(cell) + width::<7>(cell), start::<7>(cell + 1));
            assert_eq!(index::<7>(start::<7>(cell)), cell);
        }
    }
}
