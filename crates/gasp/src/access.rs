//! The kinds of access to memory.

use core::fmt;

bitflags::bitflags! {
    /// A set of kinds of access: those that a mapping or an IOMMU grant allows, that a region
    /// offers, or that a map requests.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub struct Access: u8 {
        /// The device reads memory.
        const READ = 1;
        /// The device writes memory.
        const WRITE = 2;
        /// The device fetches instructions from memory.
        const EXEC = 4;
        /// Read and write.
        const RW = 3;
        /// Read, write and execute.
        const RWX = 7;
    }
}

impl Access {
    /// Parses a text of the letters `r`, `w`, `x` and `-`, which is ignored: `"rw"`, `"r-x"`,
    /// `""`. Returns `None` if it has any other letter.
    ///
    /// ```
    /// use gasp::Access;
    /// assert_eq!(Access::parse("r-x"), Some(Access::READ | Access::EXEC));
    /// assert_eq!(Access::parse("rq"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        text.chars().try_fold(Self::empty(), |access, letter| match letter {
            'r' => Some(access | Self::READ),
            'w' => Some(access | Self::WRITE),
            'x' => Some(access | Self::EXEC),
            '-' => Some(access),
            _ => None,
        })
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = |bit, c| if self.contains(bit) { c } else { '-' };
        let text = [letter(Self::READ, 'r'), letter(Self::WRITE, 'w'), letter(Self::EXEC, 'x')];
        f.pad(&String::from_iter(text))
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_prints_three_letters_and_reads_them_back() {
        for bits in 0..8 {
            let access = Access::from_bits(bits).unwrap();
            assert_eq!(Access::parse(&access.to_string()), Some(access));
        }
        assert_eq!(Access::RW.to_string(), "rw-");
        assert_eq!(Access::parse("wr"), Some(Access::RW));
    }
}
