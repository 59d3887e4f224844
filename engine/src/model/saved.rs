//! A state as a file, so that a long prompt is computed once.
//!
//! ```text
//! 8 bytes     "ASSAYKV1"
//! 32          identity of what computed it: see Model::identity
//! 4 x u64     layers, heads_kv, head_dim, positions n
//! n x u32     the tokens
//! each layer  keys, then values: (heads_kv, n, head_dim) f16
//! 32          SHA-256 of everything before it
//! ```
//!
//! All numbers are little-endian.

use super::{Model, State};
use crate::error::{Error, Result};
use sha2::{Digest, Sha256};
use std::io;

const MAGIC: [u8; 8] = *b"ASSAYKV1";
const DIGEST: usize = 32;
const HEAD: usize = MAGIC.len() + DIGEST + 4 * 8;

/// Writes `state`, which a model of this `identity` computed. Flushing is left to the caller.
///
/// # Errors
/// - those of `out`.
pub fn write(
    state: &State,
    model: &Model<'_>,
    identity: [u8; 32],
    out: &mut impl io::Write,
) -> io::Result<()> {
    let mut hash = Sha256::new();
    let mut put = |bytes: &[u8]| {
        hash.update(bytes);
        out.write_all(bytes)
    };
    put(&MAGIC)?;
    put(&identity)?;
    sizes(model, state.position()).iter().try_for_each(|size| put(&(*size as u64).to_le_bytes()))?;
    state.tokens().iter().try_for_each(|token| put(&token.to_le_bytes()))?;
    for layer in &state.layers {
        for cache in [&layer.k, &layer.v] {
            for head in 0..model.config.heads_kv {
                put(&cache[state.filled(head, model.config.head_dim)])?;
            }
        }
    }
    out.write_all(&hash.finalize())
}

fn sizes(model: &Model<'_>, positions: usize) -> [usize; 4] {
    [model.config.layers, model.config.heads_kv, model.config.head_dim, positions]
}

/// Reads a state back, with room for `capacity` positions.
///
/// # Errors
/// - [`Error::State`] if the bytes are no state, are damaged, or were computed by something of another identity;
/// - [`Error::Input`] as [`State::new`], or if it has more positions than `capacity`.
pub fn read(bytes: &[u8], model: &Model<'_>, identity: [u8; 32], capacity: usize) -> Result<State> {
    let refuse = |problem: String, advice| Err(Error::State { problem, advice });
    let damaged = |problem: &str| refuse(problem.to_owned(), "save it again with --save-state");
    if !bytes.starts_with(&MAGIC) {
        return damaged("the file does not start with ASSAYKV1: it is no saved state");
    }
    if bytes.len() < HEAD + DIGEST {
        return damaged("the file is cut off");
    }
    let (body, digest) = bytes.split_at(bytes.len() - DIGEST);
    if Sha256::digest(body)[..] != *digest {
        return damaged("its SHA-256 does not fit: the file is damaged or cut off");
    }
    if body[MAGIC.len()..][..DIGEST] != identity {
        let problem = "another model, activation or packing computed it".to_owned();
        return refuse(problem, "resume with the model that saved it");
    }
    // The digest fits and the identity is this model's: what follows is what was written, or made to look like it.
    let numbers = body[MAGIC.len() + DIGEST..HEAD].as_chunks::<8>().0;
    let said: Vec<usize> =
        numbers.iter().map(|n| usize::try_from(u64::from_le_bytes(*n)).unwrap_or(usize::MAX)).collect();
    let positions = said[3];
    let row = 2 * model.config.kv_width();
    let expected = positions.checked_mul(4 + 2 * model.config.layers * row);
    if said[..] != sizes(model, positions) || expected != Some(body.len() - HEAD) {
        return damaged("its sizes are not those of the model");
    }
    if positions > capacity {
        let expected = format!("room for its {positions} positions");
        return Err(Error::Input { what: "a saved state", expected, got: capacity.to_string() });
    }
    let mut state = State::new(model, capacity)?;
    let (tokens, mut caches) = body[HEAD..].split_at(4 * positions);
    state.tokens = tokens.as_chunks::<4>().0.iter().map(|id| u32::from_le_bytes(*id)).collect();
    let ranges: Vec<_> =
        (0..model.config.heads_kv).map(|head| state.filled(head, model.config.head_dim)).collect();
    for layer in &mut state.layers {
        for cache in [&mut layer.k, &mut layer.v] {
            for range in &ranges {
                let (rows, rest) = caches.split_at(range.len());
                cache[range.clone()].copy_from_slice(rows);
                caches = rest;
            }
        }
    }
    Ok(state)
}
