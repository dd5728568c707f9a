//! Windows to the host: the location of `pass`.

use crate::access::Access;

/// The attributes of a window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Attributes {
    pub(super) access: Access,
    /// `m`: system memory to the guest.
    pub(super) memory: bool,
    /// `c`: cached by the host.
    pub(super) cached: bool,
}

/// The letters, one after the other: `+` and `-` add and remove those that follow.
pub(super) fn attributes(text: &str) -> Result<Attributes, String> {
    let mut found = Attributes { access: Access::empty(), memory: false, cached: false };
    let mut add = true;
    for letter in text.chars() {
        match letter {
            '+' => add = true,
            '-' => add = false,
            'r' => found.access.set(Access::READ, add),
            'w' => found.access.set(Access::WRITE, add),
            'x' => found.access.set(Access::EXEC, add),
            'c' => found.cached = add,
            'm' if add => {
                found = Attributes { access: Access::RWX, memory: true, cached: true };
            }
            'm' => found.memory = false,
            // A window can be the source and the target of any device's DMA, and no host device
            // behind it is known to make any.
            's' | 't' | 'n' => {}
            // Not made is what is supported.
            'd' | 'e' if !add => {}
            'd' => {
                return Err(
                    "`d`: DMA of host devices is not confined here; pass only devices without \
                            DMA (`n`)"
                        .into(),
                );
            }
            'e' => {
                return Err("`e`: access exceptions are not reported; leave it out".into());
            }
            other => {
                return Err(format!(
                    "unknown attribute `{other}`; there are r, w, x, c, m, n, s, t, and + and -"
                ));
            }
        }
    }
    match found.access.is_empty() {
        true => Err("expected at least one of the attributes r, w, x, m".into()),
        false => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_add_up_and_signs_last_until_the_next() {
        let window = |access, memory, cached| Ok(Attributes { access, memory, cached });
        for (text, found) in [
            ("rw", window(Access::RW, false, false)),
            ("rwc", window(Access::RW, false, true)),
            ("+rwx-x", window(Access::RW, false, false)),
            ("rwx-wx+c", window(Access::READ, false, true)),
            ("m", window(Access::RWX, true, true)),
            ("m-xc", window(Access::RW, true, false)),
            ("m-m", window(Access::RWX, false, true)),
            ("rnst-de", window(Access::READ, false, false)),
        ] {
            assert_eq!(attributes(text), found, "{text}");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_its_letter() {
        for (text, part) in [
            ("rwd", "`d`: DMA"),
            ("rwe", "`e`: access"),
            ("", "at least one"),
            ("c", "at least one"),
            ("r-r", "at least one"),
            ("rq", "unknown attribute `q`"),
        ] {
            assert!(attributes(text).unwrap_err().contains(part), "{text}");
        }
    }
}
