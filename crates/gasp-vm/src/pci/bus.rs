//! The bus: which function a configuration access belongs to.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::address::Bdf;
use super::bridge;
use super::decoder::Decoder;
use super::function::Function;

/// The host bridge.
pub(super) const BRIDGE: Bdf = Bdf::from_requester_id(0);

const HEADER_TYPE: u64 = 0x0e;
const MULTIFUNCTION: u8 = 1 << 7;

/// Bus 0.
pub(super) struct PciBus {
    functions: RwLock<BTreeMap<Bdf, Arc<Function>>>,
    decoder: Decoder,
}

impl PciBus {
    pub(super) fn new(decoder: Decoder) -> Self {
        Self { functions: RwLock::default(), decoder }
    }

    pub(super) fn find(&self, at: Bdf) -> Option<Arc<Function>> {
        self.functions.read().get(&at).cloned()
    }

    pub(super) fn is_taken(&self, at: Bdf) -> bool {
        at == BRIDGE || self.functions.read().contains_key(&at)
    }

    /// All functions but the host bridge.
    pub(super) fn all(&self) -> Vec<Bdf> {
        self.functions.read().keys().copied().collect()
    }

    pub(super) fn add(&self, function: &Arc<Function>) {
        self.functions.write().insert(function.bdf(), Arc::clone(function));
        self.follow(function);
    }

    pub(super) fn remove(&self, at: Bdf) -> Option<Arc<Function>> {
        let function = self.functions.write().remove(&at)?;
        self.decoder.remove(at);
        Some(function)
    }

    /// Follows the registers of a function that have changed.
    pub(super) fn follow(&self, function: &Arc<Function>) {
        self.decoder.update(function);
        function.follow();
    }

    /// Reads a function's configuration space, if it is there. The range lies inside it.
    pub(super) fn read(&self, at: Bdf, offset: u64, data: &mut [u8]) {
        if at == BRIDGE {
            bridge::read(offset, data);
        } else if let Some(function) = self.find(at) {
            function.config_read(offset, data);
        } else {
            return;
        }
        let header_type = HEADER_TYPE.checked_sub(offset).and_then(|at| usize::try_from(at).ok());
        if let Some(byte) = header_type.and_then(|at| data.get_mut(at))
            && self.has_more(at)
        {
            *byte |= MULTIFUNCTION;
        }
    }

    /// Writes a function's configuration space. The host bridge has nothing to be written.
    pub(super) fn write(&self, at: Bdf, offset: u64, data: &[u8]) {
        if let Some(function) = self.find(at) {
            function.config_write(offset, data);
            // It may be gone by now, and must not come back.
            let functions = self.functions.read();
            if functions.get(&at).is_some_and(|there| Arc::ptr_eq(there, &function)) {
                self.follow(&function);
            }
        }
    }

    /// Whether this is the first of several functions of a device.
    fn has_more(&self, at: Bdf) -> bool {
        let functions = self.functions.read();
        let id = at.requester_id();
        at.function() == 0
            && (1..8).any(|more| functions.contains_key(&Bdf::from_requester_id(id | more)))
    }
}
