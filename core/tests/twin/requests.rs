//! The list in `requests.txt`, with all its variations.

use apogee_net::code::RequestCode;

const LIST: &str = include_str!("requests.txt");

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Receiver {
    Broker,
    Namesrv,
}

/// One request as it is sent.
#[derive(Clone)]
pub(crate) struct Request {
    /// What is asked, for people and for the list of differences.
    pub(crate) title: String,
    pub(crate) to: Receiver,
    pub(crate) code: RequestCode,
    pub(crate) ext: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Nothing else of the answer is compared.
    pub(crate) only_code: bool,
}

/// A request of the list, and which of its parts are varied.
struct Template {
    request: Request,
    /// As many as there are fields.
    marks: Vec<Marks>,
    vary_body: bool,
    times: usize,
}

#[derive(Clone, Copy)]
struct Marks {
    required: bool,
    names_something: bool,
    number: bool,
}

/// What names something that does not exist.
const UNKNOWN: &str = "WireUnknown";

pub(crate) fn all() -> Vec<Request> {
    let lines = LIST.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut requests = lines.flat_map(|line| Template::parse(line).variations()).collect::<Vec<_>>();
    // The same request twice has an answer of its own each time.
    for at in (1..requests.len()).rev() {
        let title = &requests[at].title;
        let before = requests[..at].iter().filter(|request| request.title == *title).count();
        if before > 0 {
            requests[at].title = format!("{title} #{}", before + 1);
        }
    }
    requests
}

impl Template {
    fn parse(line: &str) -> Template {
        let (line, body, vary_body) = match (line.split_once(" || "), line.split_once(" | ")) {
            (Some((line, body)), _) => (line, body, true),
            (None, Some((line, body))) => (line, body, false),
            (None, None) => (line, "", false),
        };
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_else(|| panic!("too few words: {line}"));
        let mut only_code = false;
        let mut times = 1;
        let to = loop {
            match word() {
                "broker" => break Receiver::Broker,
                "namesrv" => break Receiver::Namesrv,
                "code" => only_code = true,
                number => {
                    times = number.parse().unwrap_or_else(|e| panic!("{number}: {e}"));
                    assert_eq!(word(), "times");
                }
            }
        };
        let code = RequestCode(word().parse().unwrap_or_else(|e| panic!("{line}: {e}")));
        let name = word();
        let mut ext = Vec::new();
        let mut marks = Vec::new();
        let mut told = String::new();
        for word in words {
            let (name, value) = word.split_once('=').unwrap_or_else(|| panic!("no field: {word}"));
            let bare = name.trim_end_matches(['!', '?', '#']);
            let has = |mark| name[bare.len()..].contains(mark);
            marks.push(Marks { required: has('!'), names_something: has('?'), number: has('#') });
            ext.push((bare.to_owned(), text(value)));
            told.push_str(&format!(" {bare}={value}"));
        }
        let title = format!("{} {name}{told}", code.0);
        let request = Request { title, to, code, ext, body: bytes(body), only_code };
        Template { request, marks, vary_body, times }
    }

    fn variations(self) -> Vec<Request> {
        let Template { request, marks, vary_body, times } = self;
        let mut requests = Vec::new();
        let head = request.title.split(' ').take(2).collect::<Vec<_>>().join(" ");
        for (at, marks) in marks.iter().enumerate() {
            let name = &request.ext[at].0;
            if marks.required {
                let mut ext = request.ext.clone();
                ext.remove(at);
                requests.push(Request { title: format!("{head} without {name}"), ext, ..request.clone() });
            }
            let unknown = if marks.names_something { &[UNKNOWN][..] } else { &[] };
            let wrong = if marks.number { &["99", "-1", "x"][..] } else { &[] };
            for value in unknown.iter().chain(wrong) {
                let mut ext = request.ext.clone();
                ext[at].1 = (*value).to_owned();
                requests.push(Request {
                    title: format!("{head} with {name}={value}"),
                    ext,
                    ..request.clone()
                });
            }
        }
        if vary_body {
            let without = Request { title: format!("{head} without body"), ..request.clone() };
            requests.push(Request { body: Vec::new(), ..without });
            let cut = Request { title: format!("{head} with half a body"), ..request.clone() };
            requests.push(Request { body: request.body[..request.body.len() / 2].to_vec(), ..cut });
        }
        // Last, so that what follows finds what it left.
        requests.extend(std::iter::repeat_n(request, times));
        requests
    }
}

fn text(word: &str) -> String {
    String::from_utf8(bytes(word)).expect("a field is UTF-8")
}

/// Percent signs begin two hexadecimal digits.
fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = std::str::from_utf8(&rest[..2]).expect("two digits");
            out.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
            rest = &rest[2..];
        } else {
            out.push(byte);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_ask_again_with_parts_left_out_or_wrong() {
        let template = Template::parse("broker 30 GET_MAX_OFFSET topic!?=Wire queueId#=%30 || ab");
        let requests = template.variations();
        let titles = requests.iter().map(|request| request.title.as_str()).collect::<Vec<_>>();
        assert_eq!(
            titles,
            [
                "30 GET_MAX_OFFSET without topic",
                "30 GET_MAX_OFFSET with topic=WireUnknown",
                "30 GET_MAX_OFFSET with queueId=99",
                "30 GET_MAX_OFFSET with queueId=-1",
                "30 GET_MAX_OFFSET with queueId=x",
                "30 GET_MAX_OFFSET without body",
                "30 GET_MAX_OFFSET with half a body",
                "30 GET_MAX_OFFSET topic=Wire queueId=%30",
            ]
        );
        let whole = requests.last().expect("the request itself");
        assert_eq!(whole.ext[1], ("queueId".to_owned(), "0".to_owned()));
        assert_eq!(requests[0].ext.len(), 1);
        assert_eq!((requests[5].body.len(), requests[6].body.len(), whole.body.len()), (0, 1, 2));
    }
}
