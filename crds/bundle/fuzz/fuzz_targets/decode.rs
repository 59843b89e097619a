//! Arbitrary bytes through every decoder of the bundle format. The first byte chooses which.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rulecast_bundle::{Bundle, Checkpoint, ChunkId, Delta, Head, Index, Key, Value, frame};

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else { return };
    match choice % 6 {
        0 => drop(Delta::decode(data)),
        1 => drop(Index::decode(data)),
        2 => {
            if let Ok(decoder) = frame::Decoder::new(data)
                && let Ok(changes) = decoder.collect::<Result<Vec<_>, _>>()
            {
                // There is one encoding.
                assert_eq!(frame::encode(changes.iter().map(|c| (&c.key, c.value.as_ref()))), data);
            }
        }
        3 => drop(frame::Decoder::new(data).and_then(Bundle::load).map(|b| b.root())),
        4 => {
            let index = Index { sequence: 1, raw_size: 1 << 16, chunks: vec![ChunkId::of(data)] };
            drop(Checkpoint::frame(&index, &[data.to_vec()]));
        }
        _ => {
            if let Some((length, rest)) = data.split_first()
                && let Some((key, value)) = rest.split_at_checked((*length).into())
                && let Ok(key) = Key::decode(key)
                && let Ok(decoded) = Value::decode(&key, value)
            {
                assert_eq!(decoded.encode(&key), value);
            }
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        drop(head(text).delta_bytes());
    }
});

fn head(delta: &str) -> Head {
    Head {
        format: rulecast_bundle::FORMAT,
        min_applier: 1,
        mode: rulecast_bundle::Mode::Nftables,
        epoch: 0,
        sequence: 1,
        digest: String::new(),
        checkpoint: String::new(),
        delta: delta.to_owned(),
    }
}
