//! Settings of a machine that are one of several words.

/// What happens on accesses that nothing handles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unsupported {
    /// An instruction that cannot be emulated.
    pub instruction: Action,
    /// A memory or port access where nothing is. A read that is ignored is all ones.
    pub reference: Action,
    /// A processor register that is not emulated.
    pub register: Action,
}

impl Default for Unsupported {
    fn default() -> Self {
        Self { instruction: Action::Fail, reference: Action::Ignore, register: Action::Fail }
    }
}

/// What happens on an access that nothing handles.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// The machine is ended.
    Abort,
    /// The processor receives the exception that hardware would raise.
    Fail,
    /// Nothing.
    Ignore,
}

/// Messages, and where they are written.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct LogConfig {
    /// The kinds of messages: a set, and not a threshold.
    pub levels: Vec<LogLevel>,
    /// Where they are written.
    pub to: LogTo,
}

/// A kind of message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogLevel {
    /// Ends the machine.
    Fatal,
    /// A defect of the program.
    Internal,
    /// Something has failed.
    Error,
    /// Something may be wrong.
    Warning,
    /// Something has happened.
    Info,
    /// For developers.
    Debug,
    /// For developers, at great length.
    Verbose,
}

/// A destination of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogTo {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// They are dropped.
    Nowhere,
}
