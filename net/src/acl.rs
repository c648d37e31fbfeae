//! Signed requests, as RocketMQ's access control wants them: every request carries who asks, and a keyed digest of all
//! that it says.
//!
//! ```text
//!     extra fields   AccessKey=k  [SecurityToken=t]  a=producers  b=T  …        as the request would have them
//!     content        the values, ordered by their names, one after the other; then the body
//!     Signature      base64(HmacSHA1(secret key, content))
//! ```
//!
//! Source: RocketMQ `AclClientRPCHook#doBeforeRequest`, `AclUtils#combineRequestContent`, `AclSigner`. The server does the
//! same with what it received (`DefaultAuthenticationContextBuilder`; 4.x: `PlainAccessValidator`), whatever the order of
//! the fields and the encoding of the header.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use smallvec::SmallVec;

use crate::header::{ExtList, ExtWriter, WriteExt};

/// `SessionCredentials`.
const ACCESS_KEY: &str = "AccessKey";
const SECURITY_TOKEN: &str = "SecurityToken";
const SIGNATURE: &str = "Signature";

/// Base64 of the 20 bytes that HmacSHA1 gives.
const SIGNATURE_BYTES: usize = 28;

/// Who asks, and the key that proves it. Copies share the same.
#[derive(Clone)]
pub struct Credentials(Arc<Secret>);

struct Secret {
    access_key: String,
    security_token: Option<String>,
    /// Has the secret key already, which would otherwise be prepared anew for each request.
    mac: Hmac<Sha1>,
}

impl Credentials {
    /// `security_token` belongs to temporary credentials and is sent along with them.
    pub fn new(access_key: &str, secret_key: &str, security_token: Option<&str>) -> Credentials {
        let mac = Hmac::new_from_slice(secret_key.as_bytes()).expect("HMAC takes keys of any length");
        let security_token = security_token.map(str::to_owned);
        Credentials(Arc::new(Secret { access_key: access_key.to_owned(), security_token, mac }))
    }

    pub fn access_key(&self) -> &str {
        &self.0.access_key
    }

    /// `request`'s fields and the three that sign it together with `body`, whose pieces are taken as one.
    pub fn sign<'a>(
        &'a self,
        request: &'a dyn WriteExt,
        body: impl IntoIterator<Item: AsRef<[u8]>>,
    ) -> Signed<'a> {
        let signature = self.signature(&(request, Identity(&self.0)), body);
        Signed { request, secret: &self.0, signature }
    }

    fn signature(
        &self,
        ext: &dyn WriteExt,
        body: impl IntoIterator<Item: AsRef<[u8]>>,
    ) -> [u8; SIGNATURE_BYTES] {
        let list = ExtList::of(ext);
        let mut fields: SmallVec<[(&str, &str); 24]> = list.iter().collect();
        // Names are ASCII, for which Java's order of texts is that of bytes. Of several with one name the last counts,
        // as in the server's map.
        fields.sort_by_key(|(name, _)| *name);
        let mut mac = self.0.mac.clone();
        for (at, (name, value)) in fields.iter().enumerate() {
            let is_last = fields.get(at + 1).is_none_or(|(next, _)| next != name);
            if is_last {
                mac.update(value.as_bytes());
            }
        }
        for piece in body {
            mac.update(piece.as_ref());
        }
        let digest = mac.finalize().into_bytes();
        let mut signature = [0; SIGNATURE_BYTES];
        let len = BASE64.encode_slice(digest, &mut signature).expect("20 bytes give 28");
        assert_eq!(len, SIGNATURE_BYTES, "base64 of a SHA-1");
        signature
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, …)", self.0.access_key)
    }
}

/// A signed request's fields, ready to be written.
pub struct Signed<'a> {
    request: &'a dyn WriteExt,
    secret: &'a Secret,
    signature: [u8; SIGNATURE_BYTES],
}

impl WriteExt for Signed<'_> {
    fn write_ext(&self, fields: &mut ExtWriter<'_>) {
        self.request.write_ext(fields);
        Identity(self.secret).write_ext(fields);
        fields.str(SIGNATURE, std::str::from_utf8(&self.signature).expect("base64 is ASCII"));
    }
}

/// The fields that say who asks.
struct Identity<'a>(&'a Secret);

impl WriteExt for Identity<'_> {
    fn write_ext(&self, fields: &mut ExtWriter<'_>) {
        fields.str(ACCESS_KEY, &self.0.access_key);
        if let Some(token) = &self.0.security_token {
            fields.str(SECURITY_TOKEN, token);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::code::RequestCode;
    use crate::command::{RequestHead, encode_request};
    use crate::flags::MessageSysFlag;
    use crate::frame::{HeaderEncoding, split_frame};
    use crate::header::{Header, NoExt};
    use crate::request::SendMessageRequest;

    const ENCODINGS: [HeaderEncoding; 2] = [HeaderEncoding::Json, HeaderEncoding::RocketMq];

    fn plain_user() -> Credentials {
        Credentials::new("rocketmq", "12345678", None)
    }

    /// What a server finds in the field after both encodings.
    fn signature(credentials: &Credentials, request: &dyn WriteExt, body: &[u8]) -> String {
        let signed = credentials.sign(request, [body]);
        let found = ENCODINGS.map(|encoding| {
            let mut wire = BytesMut::new();
            let head = RequestHead { code: RequestCode(10), opaque: 1, oneway: false, ext: &signed };
            encode_request(&mut wire, encoding, &head, 0).unwrap();
            let frame = split_frame(&mut wire).unwrap().unwrap();
            let header = Header::decode(encoding, &frame.header).unwrap();
            assert_eq!(header.ext.get("AccessKey"), Some(credentials.access_key()));
            header.ext.get("Signature").unwrap().to_owned()
        });
        assert_eq!(found[0], found[1]);
        found[0].clone()
    }

    /// Signed by `AclClientRPCHook` of Apache RocketMQ 5.5.0.
    #[test]
    fn signatures_are_those_of_rocketmq() {
        let send = SendMessageRequest {
            producer_group: "PG",
            topic: "TopicTest",
            default_topic: "TBW102",
            default_topic_queues: 4,
            queue_id: 3,
            sys_flag: MessageSysFlag(0),
            born_timestamp: 1_700_000_000_123,
            flag: 0,
            properties: "KEYS\u{1}k\u{2}WAIT\u{1}true\u{2}",
            reconsume_times: 0,
            unit_mode: false,
            max_reconsume_times: None,
            batch: false,
            broker_name: Some("broker-a"),
        };
        let secret = "a longer secret key, longer than the sixty-four bytes of a SHA-1 block: äöü";
        let temporary = Credentials::new("user-1", secret, Some("token/of+temporary=keys"));
        let route =
            [("zoneName", "Zürich 東京 \"x\""), ("topic", "TopicTest"), ("acceptStandardJsonOnly", "true")];
        assert_eq!(signature(&plain_user(), &send, b"hello"), "xv5kWbppFZXbeigJWDdG7AhgYLo=");
        assert_eq!(signature(&temporary, &send, b"hello"), "S1R6LkfQ4VprKA3wBh7hVMIMWOU=");
        assert_eq!(signature(&plain_user(), &route, b""), "OBqwlGWm5pSojXBu8IMkyxiVX10=");
        assert_eq!(signature(&plain_user(), &NoExt, b""), "wmnVRiuXwvgUxJ6oySLyc1qu7Z4=");
    }

    #[test]
    fn of_several_fields_with_one_name_the_last_is_signed() {
        let twice = [("topic", "first"), ("topic", "last")];
        let once = [("topic", "last")];
        assert_eq!(signature(&plain_user(), &twice, b""), signature(&plain_user(), &once, b""));
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{:?}", plain_user()), "Credentials(rocketmq, …)");
    }

    proptest! {
        #[test]
        fn a_body_in_pieces_is_signed_as_one(body in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..200) {
            let credentials = plain_user();
            let (first, second) = body.split_at(at.min(body.len()));
            let (whole, pieces) = (credentials.sign(&NoExt, [&body]), credentials.sign(&NoExt, [first, second]));
            prop_assert_eq!(whole.signature, pieces.signature);
        }
    }
}
