//! `GASP_DEBUG=guard`: mappings with pages of their own, so that a device's stray access
//! raises a signal at the faulting line.

use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::BTreeMap;
use std::env;
use std::sync::Once;

use gasp::ffi::Token;
use gasp::{Errno, Fence, Mapping};
use parking_lot::{Mutex, MutexGuard};

use crate::boundary::Outcome;

const VARIABLE: &str = "GASP_DEBUG";

static ON: AtomicBool = AtomicBool::new(false);

/// The mappings that are not unmapped yet, by their handle, with their fences; `None` if the
/// memory cannot be mapped again.
type Mapped = BTreeMap<[u64; 3], Option<Fence>>;

static MAPPED: Mutex<Mapped> = Mutex::new(Mapped::new());

fn mapped() -> MutexGuard<'static, Mapped> {
    MAPPED.lock()
}

/// Reads the environment variable. Called with the first guest, after the log is set up.
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Some(value) = env::var_os(VARIABLE) else { return };
        let value = value.to_string_lossy();
        let (on, unknown) = parse(&value);
        for word in unknown {
            tracing::warn!("{VARIABLE}: unknown word {word:?}; the only one is guard");
        }
        if on {
            tracing::warn!(
                "{VARIABLE}=guard: each mapping gets pages of its own, with a guard page on \
                 either side; a map takes some microseconds"
            );
        }
        ON.store(on, Ordering::Relaxed);
    });
}

/// Whether `guard` is in a comma-separated list of words, and the unknown words.
fn parse(value: &str) -> (bool, Vec<&str>) {
    let words = value.split(',').map(str::trim).filter(|word| !word.is_empty());
    let (known, unknown): (Vec<_>, _) = words.partition(|&word| word == "guard");
    (!known.is_empty(), unknown)
}

/// Whether the mode is on. Then handles are created by [`token`] alone.
#[inline(always)]
pub(crate) fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Turns a mapping into a handle: of its fence, if the mode is on. Must not be called in a
/// section.
pub(crate) fn token(mapping: Mapping) -> Outcome<Token> {
    if !is_on() {
        return Ok(mapping.into_token());
    }
    let fence = match mapping.fence() {
        Ok(fence) => Some(fence),
        // A program that works without the mode works with it.
        Err(error) if matches!(error.errno(), Errno::INVAL | Errno::PERM) => {
            static LOGGED: Once = Once::new();
            LOGGED.call_once(|| {
                tracing::warn!("{VARIABLE}=guard: such memory has no guard pages: {error}");
            });
            None
        }
        Err(error) => return Err(error.into()),
    };
    let token = match &fence {
        Some(fence) => mapping.into_fenced_token(fence),
        None => mapping.into_token(),
    };
    mapped().insert(token.words(), fence);
    Ok(token)
}

/// Unmaps a handle of [`token`]. Of several threads that unmap one handle, one succeeds, and the
/// others do nothing.
#[cold]
#[inline(never)]
pub(crate) fn unmap(handle: [u64; 3]) {
    if is_on() {
        // A statement of its own: the list is not locked while the fence is unmapped.
        let gone = mapped().remove(&handle);
        // The fence is unmapped first, while the mapping still holds the memory.
        let Some(fence) = gone else { return };
        drop(fence);
    }
    Token::from_words(handle).unmap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_separated_by_commas_and_unknown_ones_are_reported() {
        assert_eq!(parse(""), (false, vec![]));
        assert_eq!(parse("guard"), (true, vec![]));
        assert_eq!(parse(" , guard,"), (true, vec![]));
        assert_eq!(parse("Guard,guard,guards"), (true, vec!["Guard", "guards"]));
        assert_eq!(parse("1"), (false, vec!["1"]));
    }
}
