//! Writing frames: length, mark and header go into one buffer; a body may follow in the same buffer or, by a vectored
//! write, from wherever it lies.

use bytes::BytesMut;

use crate::code::{RequestCode, ResponseCode};
use crate::frame::{FRAME_BYTES_MAX, FrameError, HeaderEncoding, LENGTH_BYTES, PREFIX_BYTES};
use crate::header::{FLAG_ONEWAY, FLAG_REPLY, HeaderWriter, WriteExt};

#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    pub code: RequestCode,
    /// Request id: the reply repeats it.
    pub opaque: i32,
    /// No reply is wanted.
    pub oneway: bool,
    pub ext: &'a dyn WriteExt,
}

#[derive(Clone, Copy)]
pub struct ReplyHead<'a> {
    pub code: ResponseCode,
    /// The request's.
    pub opaque: i32,
    /// For people, except that pulls put their status name here. Written up to 4 KiB.
    pub remark: Option<&'a str>,
    pub ext: &'a dyn WriteExt,
}

/// Appends everything of a request frame but its body, of which exactly `body_len` bytes must follow.
///
/// Fails only if the frame would be longer than [`FRAME_BYTES_MAX`]; `out` is then as before.
pub fn encode_request(
    out: &mut BytesMut,
    encoding: HeaderEncoding,
    head: &RequestHead<'_>,
    body_len: usize,
) -> Result<(), FrameError> {
    let flag = if head.oneway { FLAG_ONEWAY } else { 0 };
    let header =
        HeaderWriter { encoding, code: head.code.0, flag, opaque: head.opaque, remark: None, ext: head.ext };
    encode(out, &header, body_len)
}

/// Appends everything of a reply frame but its body, of which exactly `body_len` bytes must follow.
///
/// `encoding` is the request's: answering JSON in binary would break the C++ client, which reads only JSON.
/// Fails only if the frame would be longer than [`FRAME_BYTES_MAX`]; `out` is then as before.
pub fn encode_reply(
    out: &mut BytesMut,
    encoding: HeaderEncoding,
    head: &ReplyHead<'_>,
    body_len: usize,
) -> Result<(), FrameError> {
    let ReplyHead { code, opaque, remark, ext } = *head;
    let header = HeaderWriter { encoding, code: code.0, flag: FLAG_REPLY, opaque, remark, ext };
    encode(out, &header, body_len)
}

/// Appends a whole request frame: for bodies so small that a copy costs less than another slice.
pub fn append_request(
    out: &mut BytesMut,
    encoding: HeaderEncoding,
    head: &RequestHead<'_>,
    body: &[u8],
) -> Result<(), FrameError> {
    encode_request(out, encoding, head, body.len())?;
    out.extend_from_slice(body);
    Ok(())
}

/// Appends a whole reply frame: for bodies so small that a copy costs less than another slice.
pub fn append_reply(
    out: &mut BytesMut,
    encoding: HeaderEncoding,
    head: &ReplyHead<'_>,
    body: &[u8],
) -> Result<(), FrameError> {
    encode_reply(out, encoding, head, body.len())?;
    out.extend_from_slice(body);
    Ok(())
}

fn encode(out: &mut BytesMut, header: &HeaderWriter<'_>, body_len: usize) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX_BYTES]);
    header.write(out);
    let header_len = out.len() - start - PREFIX_BYTES;
    let frame_len = PREFIX_BYTES + header_len + body_len;
    if frame_len > FRAME_BYTES_MAX {
        out.truncate(start);
        return Err(FrameError::TooLong { found: frame_len, max: FRAME_BYTES_MAX });
    }
    let prefix = &mut out[start..][..PREFIX_BYTES];
    prefix[LENGTH_BYTES..].copy_from_slice(&(header_len as u32).to_be_bytes());
    prefix[LENGTH_BYTES] = header.encoding as u8;
    prefix[..LENGTH_BYTES].copy_from_slice(&((frame_len - LENGTH_BYTES) as u32).to_be_bytes());
    Ok(())
}
