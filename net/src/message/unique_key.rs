use std::net::IpAddr;

use super::ids::HexId;

/// Makes unique keys (`UNIQ_KEY`) as Java's clients do (`MessageClientIDSetter`).
///
/// ```text
///     IP (4 or 16) | process u16 | loader u32 | ms since the month began u32 | counter u16      as hexadecimal
/// ```
///
/// Brokers treat the key as opaque; tools read the time of birth from it. Ours counts months in UTC, where Java takes
/// the local zone: nobody else can know that zone, and a process that moves keeps its keys apart by the other fields.
#[derive(Clone, Debug)]
pub struct UniqueKeys {
    /// IP, process and loader.
    fixed: [u8; FIXED_BYTES_MAX],
    fixed_len: usize,
    counter: u16,
}

const FIXED_BYTES_MAX: usize = 16 + 2 + 4;
const TIME_BYTES: usize = 4;
const COUNTER_BYTES: usize = 2;

const _: () = assert!(FIXED_BYTES_MAX + TIME_BYTES + COUNTER_BYTES == 28);

impl UniqueKeys {
    /// `salt` tells generators of one process apart, as the class loader's hash does in Java: give each its own.
    pub fn new(ip: IpAddr, process: u32, salt: u32) -> Self {
        let mut fixed = [0; FIXED_BYTES_MAX];
        let ip_len = match ip.to_canonical() {
            IpAddr::V4(v4) => {
                fixed[..4].copy_from_slice(&v4.octets());
                4
            }
            IpAddr::V6(v6) => {
                fixed[..16].copy_from_slice(&v6.octets());
                16
            }
        };
        // Java too keeps the low half of the process id.
        fixed[ip_len..][..2].copy_from_slice(&(process as u16).to_be_bytes());
        fixed[ip_len + 2..][..4].copy_from_slice(&salt.to_be_bytes());
        Self { fixed, fixed_len: ip_len + 6, counter: 0 }
    }

    /// The next key. Unique as long as fewer than 65,536 are made in one millisecond of `now_ms`.
    pub fn next(&mut self, now_ms: i64) -> HexId {
        let mut key = [0; FIXED_BYTES_MAX + TIME_BYTES + COUNTER_BYTES];
        let (fixed, rest) = key.split_at_mut(self.fixed_len);
        fixed.copy_from_slice(&self.fixed[..self.fixed_len]);
        rest[..TIME_BYTES].copy_from_slice(&ms_of_month(now_ms).to_be_bytes());
        rest[TIME_BYTES..][..COUNTER_BYTES].copy_from_slice(&self.counter.to_be_bytes());
        self.counter = self.counter.wrapping_add(1);
        HexId::new(&key[..self.fixed_len + TIME_BYTES + COUNTER_BYTES])
    }
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Milliseconds since the first of the month, 00:00 UTC: at most 31 days, which fits.
fn ms_of_month(now_ms: i64) -> u32 {
    let days = now_ms.div_euclid(DAY_MS);
    let whole_days = day_of_month(days) - 1;
    (whole_days * DAY_MS + now_ms.rem_euclid(DAY_MS)) as u32
}

/// Day of the month, from 1, of a day counted from 1970-01-01.
///
/// Counted from 1 March of year 0 instead, leap days come last: years within a 400-year era, then days within a year
/// that begins in March, then months of 31, 30, 31, 30, 31 days twice over (and the rest), 153 days to five.
fn day_of_month(days_since_1970: i64) -> i64 {
    const DAYS_FROM_MARCH_0000_TO_1970: i64 = 719_468;
    const DAYS_PER_ERA: i64 = 146_097;
    let day_of_era = (days_since_1970 + DAYS_FROM_MARCH_0000_TO_1970).rem_euclid(DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / (DAYS_PER_ERA - 1)) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    day_of_year - (153 * month_from_march + 2) / 5 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_begin_where_the_calendar_says() {
        // Seconds since 1970 as `date -u +%s -d …` gives them.
        for (seconds, day) in [
            (0, 1),              // 1970-01-01
            (951_782_400, 29),   // 2000-02-29
            (951_868_800, 1),    // 2000-03-01
            (1_700_000_000, 14), // 2023-11-14 22:13:20
            (1_709_164_800, 29), // 2024-02-29
            (1_735_689_599, 31), // 2024-12-31 23:59:59
            (4_107_542_400, 1),  // 2100-03-01
            (4_107_542_399, 28), // 2100-02-28 23:59:59
            (-1, 31),            // 1969-12-31 23:59:59
        ] {
            assert_eq!(day_of_month(i64::div_euclid(seconds, 86_400)), day, "{seconds}");
        }
        assert_eq!(ms_of_month(1_700_000_000_000), (13 * 86_400 + 22 * 3600 + 13 * 60 + 20) * 1000);
    }

    #[test]
    fn keys_are_laid_out_as_javas() {
        let mut keys = UniqueKeys::new("127.0.0.1".parse().unwrap(), 0x1_0001, 0x18B4_AAC2);
        let first = keys.next(1_700_000_000_123);
        assert_eq!(first.as_str(), format!("7F000001000118B4AAC2{:08X}0000", ms_of_month(1_700_000_000_123)));
        assert_eq!(&keys.next(1_700_000_000_123)[28..], "0001");

        let mut keys = UniqueKeys::new("::1".parse().unwrap(), 1, 2);
        assert_eq!(keys.next(0).as_str(), format!("{:032X}00010000000200000000{:04X}", 1, 0));
    }
}
