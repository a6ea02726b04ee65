//! The part of MessagePack that events need: an array of strings, integers and nil.
//!
//! Formats are those of the specification (github.com/msgpack/msgpack/blob/master/spec.md), each in its shortest form,
//! strings as `str`, never as `bin`: managers refuse bytes where they expect text.

/// An element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item<'a> {
    Text(&'a str),
    Number(u64),
    Nil,
}

/// The encoding of an array.
pub(super) fn array(items: &[Item<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    length(&mut out, items.len(), (0x90, 15), &[(0xdc, 2), (0xdd, 4)]);
    for item in items {
        match item {
            Item::Text(text) => string(&mut out, text),
            Item::Number(number) => integer(&mut out, *number),
            Item::Nil => out.push(0xc0),
        }
    }
    out
}

fn string(out: &mut Vec<u8>, text: &str) {
    length(out, text.len(), (0xa0, 31), &[(0xd9, 1), (0xda, 2), (0xdb, 4)]);
    out.extend_from_slice(text.as_bytes());
}

fn integer(out: &mut Vec<u8>, number: u64) {
    let bytes = number.to_be_bytes();
    let (tag, size) = match number {
        0..=0x7f => (None, 1),
        0x80..=0xff => (Some(0xcc), 1),
        0x100..=0xffff => (Some(0xcd), 2),
        0x1_0000..=0xffff_ffff => (Some(0xce), 4),
        _ => (Some(0xcf), 8),
    };
    out.extend(tag);
    out.extend(bytes.iter().skip(8 - size));
}

/// A length in the tag itself where it is at most `short.1`, else in as many bytes behind a tag as it needs.
fn length(out: &mut Vec<u8>, length: usize, short: (u8, usize), long: &[(u8, usize)]) {
    if let Some(small) = u8::try_from(length).ok().filter(|small| usize::from(*small) <= short.1) {
        return out.push(short.0 | small);
    }
    let bytes = (length as u64).to_be_bytes();
    let fits = |size: usize| bytes.iter().take(8 - size).all(|byte| *byte == 0);
    if let Some((tag, size)) = long.iter().find(|(_, size)| fits(*size)) {
        out.push(*tag);
        out.extend(bytes.iter().skip(8 - size));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_numbers_take_their_shortest_form() {
        let text = |length: usize| array(&[Item::Text(&"a".repeat(length))]);
        assert_eq!(array(&[]), [0x90]);
        assert_eq!(text(2), [0x91, 0xa2, b'a', b'a']);
        assert_eq!(text(31)[..2], [0x91, 0xbf]);
        assert_eq!(text(32)[..3], [0x91, 0xd9, 32]);
        assert_eq!(text(74)[..3], [0x91, 0xd9, 0x4a]);
        assert_eq!(text(256)[..4], [0x91, 0xda, 1, 0]);
        assert_eq!(text(70_000)[..6], [0x91, 0xdb, 0, 1, 0x11, 0x70]);
        for (number, bytes) in [
            (0, &[0x91, 0][..]),
            (127, &[0x91, 127]),
            (128, &[0x91, 0xcc, 128]),
            (256, &[0x91, 0xcd, 1, 0]),
            (65_536, &[0x91, 0xce, 0, 1, 0, 0]),
            (1 << 32, &[0x91, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0]),
        ] {
            assert_eq!(array(&[Item::Number(number)]), bytes);
        }
        assert_eq!(array(&[Item::Nil, Item::Text("x")]), [0x92, 0xc0, 0xa1, b'x']);
        assert_eq!(array(&vec![Item::Nil; 16])[..3], [0xdc, 0, 16]);
    }
}
