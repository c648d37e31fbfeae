//! Bit fields that travel as integers.

/// Declares a bit field over `i32` with its named bits. Unnamed bits are kept as received.
macro_rules! bits {
    ($($(#[$meta:meta])* $type:ident { $($(#[$note:meta])* $name:ident = $value:literal,)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $type(pub i32);

        impl $type {
            $($(#[$note])* pub const $name: Self = Self($value);)*

            /// Whether all of `bits` are set.
            pub const fn contains(self, bits: Self) -> bool {
                self.0 & bits.0 == bits.0
            }

            #[must_use]
            pub const fn with(self, bits: Self) -> Self {
                Self(self.0 | bits.0)
            }

            #[must_use]
            pub const fn without(self, bits: Self) -> Self {
                Self(self.0 & !bits.0)
            }
        }
    )*};
}

bits! {
    /// How a message's body and addresses are to be read (`MessageSysFlag`).
    MessageSysFlag {
        /// The producer compressed the body; the broker stores it as received.
        COMPRESSED = 0x001,
        MULTI_TAGS = 0x002,
        /// A half message.
        TRANSACTION_PREPARED = 0x004,
        TRANSACTION_COMMIT = 0x008,
        /// Also the mask of the transaction bits: all of them clear means no transaction.
        TRANSACTION_ROLLBACK = 0x00c,
        BORN_HOST_IPV6 = 0x010,
        STORE_HOST_IPV6 = 0x020,
        /// The client unwraps a message only if this and `INNER_BATCH` are set.
        NEEDS_UNWRAP = 0x040,
        INNER_BATCH = 0x080,
        /// Mask: 0 and 3 zlib, 1 LZ4 frames, 2 zstd.
        COMPRESSION_TYPE = 0x700,
    }

    /// What a pull wants besides messages (`PullSysFlag`).
    PullSysFlag {
        /// Store the request's `commit_offset` for the group.
        COMMIT_OFFSET = 0x01,
        /// Hold the request while there is nothing to return.
        SUSPEND = 0x02,
        /// Filter by this request's expression, not by the one from the heartbeat.
        SUBSCRIPTION = 0x04,
        /// Historic.
        CLASS_FILTER = 0x08,
        LITE_PULL = 0x10,
    }

    /// What may be done with a topic or a broker (`PermName`).
    Perm {
        /// Topics may be created from this one.
        INHERIT = 1,
        WRITE = 2,
        READ = 4,
        READ_WRITE = 6,
        PRIORITY = 8,
    }
}

impl MessageSysFlag {
    /// The transaction bits alone; none set for an ordinary message.
    pub const fn transaction(self) -> Self {
        Self(self.0 & Self::TRANSACTION_ROLLBACK.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_set_and_cleared_by_name() {
        let flag = PullSysFlag(2).with(PullSysFlag::COMMIT_OFFSET);
        assert_eq!(flag, PullSysFlag(3));
        assert!(flag.contains(PullSysFlag::SUSPEND) && !flag.contains(PullSysFlag::SUBSCRIPTION));
        assert_eq!(Perm(7).without(Perm::INHERIT), Perm::READ_WRITE);
        assert!(!Perm::WRITE.contains(Perm::READ_WRITE));
    }

    #[test]
    fn transaction_state_is_told_by_both_bits() {
        let flag = MessageSysFlag::COMPRESSED.with(MessageSysFlag::TRANSACTION_COMMIT);
        assert_eq!(flag.transaction(), MessageSysFlag::TRANSACTION_COMMIT);
        assert_eq!(MessageSysFlag::COMPRESSED.transaction(), MessageSysFlag(0));
    }
}
