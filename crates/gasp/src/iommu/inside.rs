//! Whether a thread is inside a translator: then what it maps may miss as well.

/// A thread that is inside a translator.
pub(super) struct Inside(());

#[cfg(not(loom))]
std::thread_local! {
    /// How many translators the thread is inside.
    static DEPTH: core::cell::Cell<u32> = const { core::cell::Cell::new(0) };
}

#[cfg(not(loom))]
impl Inside {
    pub(super) fn begin() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self(())
    }

    pub(super) fn is_inside() -> bool {
        DEPTH.get() > 0
    }
}

#[cfg(not(loom))]
impl Drop for Inside {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
    }
}

/// No translator of the proofs maps anything.
#[cfg(loom)]
impl Inside {
    pub(super) fn begin() -> Self {
        Self(())
    }

    pub(super) fn is_inside() -> bool {
        false
    }
}
