use std::borrow::Cow;

use crate::flags::{MessageSysFlag, Perm, PullSysFlag};
use crate::header::{ExtFields, ExtWriter};

/// A request or reply header that can be read from extra fields.
pub trait TypedHeader<'a>: Sized {
    /// Reads the fields in one pass. Texts are borrowed; nothing is allocated unless a field is wrong.
    fn decode(ext: &'a ExtFields<'_>) -> Result<Self, FieldError>;
}

/// Why a request cannot be understood. Java answers such a request with code 1 and the exception as remark.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("{header}: field {field} is missing")]
    Missing { header: &'static str, field: &'static str },
    #[error("{header}: field {field} is {found:?}, expected {expected}")]
    Invalid { header: &'static str, field: &'static str, expected: &'static str, found: String },
}

/// A type that one extra field can have.
pub trait Field<'a>: Sized {
    /// For errors: "a 32-bit integer".
    const EXPECTED: &'static str;

    fn parse(text: &'a str) -> Option<Self>;

    /// The value of a field that is not there; `None` if it has to be.
    fn when_missing() -> Option<Self> {
        None
    }

    fn write(&self, name: &str, fields: &mut ExtWriter<'_>);
}

impl<'a> Field<'a> for &'a str {
    const EXPECTED: &'static str = "a text";

    fn parse(text: &'a str) -> Option<Self> {
        Some(text)
    }

    fn write(&self, name: &str, fields: &mut ExtWriter<'_>) {
        fields.str(name, self);
    }
}

/// For replies, which often outlive what they were made of.
impl<'a> Field<'a> for Cow<'a, str> {
    const EXPECTED: &'static str = "a text";

    fn parse(text: &'a str) -> Option<Self> {
        Some(Cow::Borrowed(text))
    }

    fn write(&self, name: &str, fields: &mut ExtWriter<'_>) {
        fields.str(name, self);
    }
}

/// `Boolean.parseBoolean`: "true" in any case, everything else is false.
impl Field<'_> for bool {
    const EXPECTED: &'static str = "true or false";

    fn parse(text: &str) -> Option<Self> {
        Some(text.eq_ignore_ascii_case("true"))
    }

    fn write(&self, name: &str, fields: &mut ExtWriter<'_>) {
        fields.bool(name, *self);
    }
}

macro_rules! integer_fields {
    ($($type:ty, $expected:literal;)*) => {$(
        impl Field<'_> for $type {
            const EXPECTED: &'static str = $expected;

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn write(&self, name: &str, fields: &mut ExtWriter<'_>) {
                fields.int(name, *self);
            }
        }
    )*};
}

integer_fields! {
    i32, "a 32-bit integer";
    i64, "a 64-bit integer";
}

macro_rules! flag_fields {
    ($($type:ident),*) => {$(
        impl Field<'_> for $type {
            const EXPECTED: &'static str = "a 32-bit bit field";

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok().map($type)
            }

            fn write(&self, name: &str, fields: &mut ExtWriter<'_>) {
                fields.int(name, self.0);
            }
        }
    )*};
}

flag_fields!(MessageSysFlag, PullSysFlag, Perm);

/// A field that may be left out.
impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn parse(text: &'a str) -> Option<Self> {
        T::parse(text).map(Some)
    }

    fn when_missing() -> Option<Self> {
        Some(None)
    }

    fn write(&self, name: &str, fields: &mut ExtWriter<'_>) {
        if let Some(value) = self {
            value.write(name, fields);
        }
    }
}

/// Most of a wrong value that an error repeats.
const FOUND_CHARS_MAX: usize = 64;

pub(super) fn parse<'a, T: Field<'a>>(
    header: &'static str,
    field: &'static str,
    text: &'a str,
) -> Result<T, FieldError> {
    T::parse(text).ok_or_else(|| FieldError::Invalid {
        header,
        field,
        expected: T::EXPECTED,
        found: text.chars().take(FOUND_CHARS_MAX).collect(),
    })
}

pub(super) fn missing<'a, T: Field<'a>>(header: &'static str, field: &'static str) -> Result<T, FieldError> {
    T::when_missing().ok_or(FieldError::Missing { header, field })
}

/// Declares typed headers: for each a struct, its [`TypedHeader::decode`] and its
/// [`WriteExt`](crate::header::WriteExt).
///
/// ```text
///     /// CODE (number): what it asks.
///     Name<'a> {                                  // <'a> if a field borrows text
///         topic: &'a str = "topic",               // must be there (in replies: Cow<'a, str>)
///         perm: Option<i32> = "perm",             // may be left out
///         order: bool = "order" else false,       // has a default
///         queue: i32 = "e" | "queueId",           // read under either name, written under the first
///     }
/// ```
macro_rules! headers {
    ($(
        $(#[$meta:meta])*
        $name:ident $(<$life:lifetime>)? {
            $($(#[$note:meta])* $field:ident: $type:ty = $wire:literal $(| $alias:literal)* $(else $default:expr)?,)*
        }
    )*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name $(<$life>)? {
            $($(#[$note])* pub $field: $type,)*
        }

        headers!(@decode [$($life)?] $name $(<$life>)? {
            $($field: $type = $wire $(| $alias)* $(else $default)?,)*
        });

        impl $(<$life>)? $crate::header::WriteExt for $name $(<$life>)? {
            fn write_ext(&self, fields: &mut $crate::header::ExtWriter<'_>) {
                $($crate::request::Field::write(&self.$field, $wire, fields);)*
            }
        }
    )*};

    (@decode [] $name:ident $fields:tt) => {
        headers!(@decode ['frame] $name $fields);
    };

    (@decode [$life:lifetime] $name:ident $(<$own:lifetime>)? {
        $($field:ident: $type:ty = $wire:literal $(| $alias:literal)* $(else $default:expr)?,)*
    }) => {
        impl<$life> $crate::request::TypedHeader<$life> for $name $(<$own>)? {
            fn decode(ext: &$life $crate::header::ExtFields<'_>) -> Result<Self, $crate::request::FieldError> {
                const NAME: &str = stringify!($name);
                $(let mut $field: Option<$type> = None;)*
                for (name, text) in ext.iter() {
                    match name {
                        $($wire $(| $alias)* => {
                            $field = Some($crate::request::typed::parse(NAME, $wire, text)?);
                        })*
                        _ => {}
                    }
                }
                Ok(Self {$(
                    $field: match $field {
                        Some(value) => value,
                        None => headers!(@missing NAME, $wire $(, $default)?),
                    },
                )*})
            }
        }
    };

    (@missing $header:ident, $wire:literal) => {
        $crate::request::typed::missing($header, $wire)?
    };

    (@missing $header:ident, $wire:literal, $default:expr) => {
        $default
    };
}
