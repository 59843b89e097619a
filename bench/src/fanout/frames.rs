//! A watch's bytes, cut into events. What is in them is not decoded: a load generator shall not be what is measured.

/// How events are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// A line each.
    Json,
    /// Each behind its length, four bytes, the largest first
    /// (`k8s.io/apimachinery/pkg/util/framer`, `NewLengthDelimitedFrameWriter`).
    Protobuf,
}

/// What the beginning of an event tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An object that came, changed or left.
    Object,
    /// Where the watch has got to.
    Bookmark,
    /// Why the watch ends.
    Error,
}

impl Encoding {
    /// The kind of an event.
    pub(super) fn kind(self, event: &[u8]) -> Kind {
        // The first field of a `WatchEvent` is its type, in both: `{"type":"ADDED",`, and field 1 behind its length.
        let word = match self {
            Self::Json => event.strip_prefix(b"{\"type\":\""),
            Self::Protobuf => event.get(2..),
        };
        match word {
            Some(word) if word.starts_with(b"BOOKMARK") => Kind::Bookmark,
            Some(word) if word.starts_with(b"ERROR") => Kind::Error,
            _ => Kind::Object,
        }
    }
}

/// What came of an event that is not whole yet.
pub(super) struct Frames {
    encoding: Encoding,
    rest: Vec<u8>,
}

impl Frames {
    pub(super) fn new(encoding: Encoding) -> Self {
        Self { encoding, rest: Vec::new() }
    }

    /// Takes what came and gives each event that is whole now to `each`.
    pub(super) fn push<E>(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((start, end, next)) = self.encoding.first(&self.rest[at..]) {
            each(&self.rest[at + start..at + end])?;
            at += next;
        }
        self.rest.drain(..at);
        Ok(())
    }
}

impl Encoding {
    /// Where the first event begins and ends and the next one begins, if it is whole.
    fn first(self, bytes: &[u8]) -> Option<(usize, usize, usize)> {
        match self {
            Self::Json => {
                let end = bytes.iter().position(|byte| *byte == b'\n')?;
                Some((0, end, end + 1))
            }
            Self::Protobuf => {
                let length = bytes.first_chunk().map(|length| u32::from_be_bytes(*length))?;
                let end = usize::try_from(length).ok()?.checked_add(4)?;
                (bytes.len() >= end).then_some((4, end, end))
            }
        }
    }
}

/// What is between the first occurrence of `before` and the next byte of `ends`.
pub(super) fn field<'a>(event: &'a [u8], before: &[u8], ends: &[u8]) -> Option<&'a str> {
    let start = event.windows(before.len()).position(|window| window == before)? + before.len();
    let rest = &event[start..];
    let length = rest.iter().position(|byte| ends.contains(byte))?;
    std::str::from_utf8(&rest[..length]).ok()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn events(encoding: Encoding, bytes: &[u8], step: usize) -> Vec<Vec<u8>> {
        let (mut frames, mut events) = (Frames::new(encoding), Vec::new());
        for part in bytes.chunks(step) {
            let pushed: Result<(), Infallible> = frames.push(part, |event| {
                events.push(event.to_vec());
                Ok(())
            });
            pushed.unwrap();
        }
        events
    }

    #[test]
    fn events_are_whole_however_they_come() {
        let json = b"{\"type\":\"ADDED\"}\n{\"type\":\"BOOKMARK\"}\n{\"ty";
        let protobuf = b"\0\0\0\x07\n\x05ADDED\0\0\0\x0a\n\x08BOOKMARK\0\0\0\x09\n";
        for step in 1..40 {
            let lines = events(Encoding::Json, json, step);
            assert_eq!(lines, [&b"{\"type\":\"ADDED\"}"[..], b"{\"type\":\"BOOKMARK\"}"]);
            let framed = events(Encoding::Protobuf, protobuf, step);
            assert_eq!(framed, [&b"\n\x05ADDED"[..], b"\n\x08BOOKMARK"]);
            for (encoding, events) in [(Encoding::Json, lines), (Encoding::Protobuf, framed)] {
                assert_eq!(encoding.kind(&events[0]), Kind::Object);
                assert_eq!(encoding.kind(&events[1]), Kind::Bookmark);
            }
        }
        assert_eq!(Encoding::Json.kind(b"{\"type\":\"ERROR\",\"object\":{}}"), Kind::Error);
    }

    #[test]
    fn fields_end_where_they_should() {
        let event = br#"{"spec":{"digest":"abc","sequence":17},"a":1}"#;
        assert_eq!(field(event, br#""digest":""#, b"\""), Some("abc"));
        assert_eq!(field(event, br#""sequence":"#, b",}"), Some("17"));
        assert_eq!(field(event, br#""missing":"#, b",}"), None);
        assert_eq!(field(br#"{"sequence":1"#, br#""sequence":"#, b",}"), None);
    }
}
