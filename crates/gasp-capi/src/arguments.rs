//! Pointers, texts and flags from C: the pointer rule of [the crate](crate#safety).
#![allow(unsafe_code, reason = "reads and writes through pointers from C")]

use core::ffi::{CStr, c_char};
use core::marker::PhantomData;
use core::ptr::NonNull;

use gasp::{Access, Errno, Error, Location, MapFlags, Operation, Reason};

use crate::boundary::{Failure, Outcome};
use crate::types::StateBlock;

/// The longest name, in bytes.
pub(crate) const NAME_MAX: usize = 128;

/// The place of a result, or of an argument that is also a result. It is written when the call
/// has succeeded.
pub(crate) struct Out<'call, T> {
    place: NonNull<T>,
    call: PhantomData<&'call mut T>,
}

impl<T> Out<'_, T> {
    /// # Safety
    /// `place` is NULL; or it is aligned and valid for writes of a `T` during `'call`, and nobody
    /// else accesses it meanwhile. If [`read`](Self::read) is used, it is also valid for reads of
    /// a `T` that has been initialized.
    pub(crate) unsafe fn new(place: *mut T, null: &'static str) -> Outcome<Self> {
        let place = NonNull::new(place).ok_or_else(|| Failure::invalid(null))?;
        Ok(Self { place, call: PhantomData })
    }

    pub(crate) fn write(self, value: T) {
        // SAFETY: `new` asks that `place` is aligned and valid for writes of a `T` during `'call`,
        // which has not ended: `self` has it.
        unsafe { self.place.write(value) };
    }

    /// The present value.
    pub(crate) fn read(&self) -> T
    where
        T: Copy,
    {
        // SAFETY: `new` asks that `place` is aligned, and, as `read` is used, valid for reads of an
        // initialized `T` during `'call`, which has not ended: `self` has it.
        unsafe { self.place.read() }
    }
}

/// The value at `place`; `EINVAL` with the text `null` if that is NULL.
///
/// # Safety
/// `place` is NULL, or aligned and valid for reads of an initialized `T`, which nobody changes
/// meanwhile.
pub(crate) unsafe fn read<T: Copy>(place: *const T, null: &'static str) -> Outcome<T> {
    match place.is_null() {
        true => Err(Failure::invalid(null)),
        // SAFETY: `place` is not NULL, so it is aligned and valid for reads of an initialized `T`,
        // as this function asks.
        false => Ok(unsafe { place.read() }),
    }
}

/// A copy of the `count` values from `first` on. `EINVAL` with the text `null` if that is NULL and
/// `count` is not 0; `ENOMEM`.
///
/// # Safety
/// `first` is NULL, or aligned and valid for reads of `count` initialized values, which nobody
/// changes meanwhile.
pub(crate) unsafe fn array<T: Copy>(
    first: *const T,
    count: usize,
    null: &'static str,
) -> Outcome<Vec<T>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if first.is_null() {
        return Err(Failure::invalid(null));
    }
    let mut values = Vec::new();
    if values.try_reserve_exact(count).is_err() {
        return Err(Failure::Call(Errno::NOMEM, "not enough memory for a copy of the entries"));
    }
    // SAFETY: `first` is not NULL, so it is aligned and valid for reads of `count` values, as this
    // function asks; `values` is aligned, has room for as many, as was reserved above, and is a
    // new allocation, so the two do not overlap.
    unsafe { first.copy_to_nonoverlapping(values.as_mut_ptr(), count) };
    // SAFETY: `count` is within the capacity, which was reserved above, and the line above has
    // initialized as many values.
    unsafe { values.set_len(count) };
    Ok(values)
}

/// A text in UTF-8; `EINVAL` for any other, or with the text `null` for NULL.
///
/// # Safety
/// `text` is NULL, or points to a string that ends in a NUL, is valid for reads up to it, and
/// is changed by nobody during `'call`.
pub(crate) unsafe fn text<'call>(text: *const c_char, null: &'static str) -> Outcome<&'call str> {
    if text.is_null() {
        return Err(Failure::invalid(null));
    }
    // SAFETY: `text` is not NULL, so it points to a string with a NUL at its end, valid for reads
    // and unchanged during `'call`, as this function asks.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Failure::invalid("the text is not UTF-8"))
}

/// A name: 1 to 128 bytes of UTF-8 without control characters; else `EINVAL`.
///
/// # Safety
/// `name` is as [`text`] asks of its argument.
pub(crate) unsafe fn name<'call>(name: *const c_char) -> Outcome<&'call str> {
    // SAFETY: `text` asks that `name` is NULL or a C string that does not change during `'call`, as
    // this function does.
    let name = unsafe { text(name, "the name is NULL") }?;
    match (1..=NAME_MAX).contains(&name.len()) && !name.contains(char::is_control) {
        true => Ok(name),
        false => Err(Failure::invalid("a name is 1 to 128 bytes without control characters")),
    }
}

/// The flags of a map; `ENXIO` if they are not valid (decision 4).
#[inline]
pub(crate) fn map_flags(
    op: Operation,
    place: impl FnOnce() -> Location,
    len: usize,
    bits: u32,
) -> Outcome<MapFlags> {
    match MapFlags::from_bits(bits) {
        Ok(flags) => Ok(flags),
        Err(reason) => Err(Error::new(op, place(), len as u64, reason).into()),
    }
}

/// Checks `spare` of a state block; `EINVAL` if it is not 0.
pub(crate) fn check_spare(block: &StateBlock) -> Outcome {
    match block.spare {
        0 => Ok(()),
        _ => Err(Failure::invalid("spare is not 0")),
    }
}

/// A set of `GMF_READ`, `GMF_WRITE` and `GMF_EXEC` with at least one of them.
pub(crate) fn access(bits: u32) -> Result<Access, Reason> {
    let access = u8::try_from(bits).ok().and_then(Access::from_bits);
    access.filter(|access| !access.is_empty()).ok_or(Reason::BadFlags(bits))
}
