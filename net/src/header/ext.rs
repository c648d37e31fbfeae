use std::fmt;

use smallvec::SmallVec;

use super::HeaderError;

/// Most extra fields of one header. The largest request of RocketMQ has some twenty, signature included.
pub const EXT_FIELDS_MAX: usize = 128;

/// Fields held without allocating: a send of a 5.3 client with a signature has 22.
const FIELDS_INLINE: usize = 24;
/// Unescaped text held without allocating. JSON escapes the separators inside a message's property string, so every
/// send by a stock client needs room for its properties here.
const UNESCAPED_INLINE: usize = 512;

/// The extra fields (`extFields`) of a header, in the order received: names and values as texts.
///
/// ```text
///     frame      …"topic":"T","i":"TAGS\u0001a\u0002"…
///                  ^^^^^   ^   ^
///     pairs      [(Frame  , Frame), (Frame, Unescaped{at: 0, len: 7})]
///     unescaped  TAGS.a.
/// ```
///
/// No map: requests read their fields in one pass over the pairs.
#[derive(Clone, Default)]
pub struct ExtFields<'a> {
    pairs: SmallVec<[(Text<'a>, Text<'a>); FIELDS_INLINE]>,
    /// Texts one after the other; each is whole UTF-8.
    unescaped: SmallVec<[u8; UNESCAPED_INLINE]>,
}

#[derive(Clone, Copy)]
pub(super) enum Text<'a> {
    Frame(&'a str),
    Unescaped { at: u32, len: u32 },
}

impl ExtFields<'_> {
    /// The value of `name`; of several, the last (Java fills a map).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(key, _)| self.text(key) == name).map(|(_, value)| self.text(value))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(key, value)| (self.text(key), self.text(value)))
    }

    pub fn len(&self) -> usize {
        self.pairs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    pub(super) fn text<'s>(&'s self, text: &'s Text<'_>) -> &'s str {
        match *text {
            Text::Frame(text) => text,
            Text::Unescaped { at, len } => {
                let bytes = &self.unescaped[at as usize..][..len as usize];
                std::str::from_utf8(bytes).expect("unescaped texts are whole UTF-8")
            }
        }
    }
}

/// What the two decoders do.
impl<'a> ExtFields<'a> {
    pub(super) fn push(&mut self, name: Text<'a>, value: Text<'a>) -> Result<(), HeaderError> {
        if self.pairs.len() == EXT_FIELDS_MAX {
            return Err(HeaderError::TooManyFields { max: EXT_FIELDS_MAX });
        }
        self.pairs.push((name, value));
        Ok(())
    }

    /// Keeps a text that does not stand in the frame as it has to be read; `write` gives it piece by piece.
    /// Unescaping shrinks texts and repairing them at most triples them, so positions stay far below 2^32.
    pub(super) fn unescaped(&mut self, write: impl FnOnce(&mut dyn FnMut(&str))) -> Text<'a> {
        let at = self.unescaped.len();
        write(&mut |piece| self.unescaped.extend_from_slice(piece.as_bytes()));
        Text::Unescaped { at: at as u32, len: (self.unescaped.len() - at) as u32 }
    }

    /// The same fields, borrowing nothing.
    pub(super) fn detached<'b>(&self) -> ExtFields<'b> {
        let mut detached = ExtFields::default();
        for (name, value) in self.iter() {
            let name = detached.unescaped(|push| push(name));
            let value = detached.unescaped(|push| push(value));
            detached.pairs.push((name, value));
        }
        detached
    }
}

impl fmt::Debug for ExtFields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
