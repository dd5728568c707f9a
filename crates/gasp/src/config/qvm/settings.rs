//! Settings of the machine: `set`, `unsupported`, `logger` and `log`.

use toml::Spanned;

use super::draft::Draft;
use super::lex::Token;
use super::options::{self, Variable};
use crate::config::error::ConfigError;
use crate::config::file::LogTable;
use crate::config::machine::settings::LogLevel;
use crate::config::near::hint;
use crate::config::words::Named;

impl Draft<'_> {
    pub(super) fn set(&mut self, name: &Token) -> Result<(), ConfigError> {
        let variable = self.reader.argument(name, "set", "a variable and its value")?;
        let value = self.reader.argument(name, "set", "the value of the variable")?;
        match options::variable(&variable.text) {
            Some(Variable::ExitOnHalt) => {
                let on = match value.text.as_str() {
                    "1" | "yes" | "on" | "true" => true,
                    "0" | "no" | "off" | "false" => false,
                    other => {
                        let message =
                            format!("`exit-on-halt`: expected `on` or `off`, not `{other}`");
                        return self.wrong(&value, "set", &message);
                    }
                };
                self.document.machine.exit_on_halt = Some(on);
                Ok(())
            }
            Some(Variable::Refused(why)) => {
                self.refuse(&variable, "set", &format!("`{}`: {why}", variable.text))
            }
            None => {
                let name = &variable.text;
                let hint = hint(name, &options::variables());
                self.wrong(&variable, "set", &format!("unknown variable `{name}`{hint}"))
            }
        }
    }

    pub(super) fn unsupported(&mut self, name: &Token) -> Result<(), ConfigError> {
        const WHAT: [&str; 3] = ["instruction", "reference", "register"];
        let key = "unsupported";
        let what = self.reader.argument(name, key, "what, and the action")?;
        let action = self.reader.argument(name, key, "`abort`, `fail` or `ignore`")?;
        let action = Some(Named(self.one_of(&action, key)?));
        let table = &mut self.document.machine.unsupported;
        match what.text.as_str() {
            "instruction" => table.instruction = action,
            "reference" => table.reference = action,
            "register" => table.register = action,
            other => {
                let message = format!("unknown word `{other}`{}", hint(other, &WHAT));
                return self.wrong(&what, key, &message);
            }
        }
        Ok(())
    }

    pub(super) fn log(
        &mut self,
        name: &Token,
        key: &'static str,
    ) -> Result<Spanned<LogTable>, ConfigError> {
        let filters = self.reader.argument(name, key, "`LEVEL[,LEVEL…] DESTINATION`")?;
        let to = self.reader.argument(name, key, "`stdout`, `stderr` or `none`")?;
        let mut levels: Vec<Named<LogLevel>> = Vec::new();
        for level in filters.text.split(',') {
            let level = if level == "warn" { "warning" } else { level };
            let level = Token { text: level.into(), ..filters.clone() };
            levels.push(Named(self.one_of(&level, key)?));
        }
        if to.text == "slog" {
            return Err(self.refused(&to, key, "`slog`: this host has none; use `stderr`, or"));
        }
        let to = Named(self.one_of(&to, key)?);
        Ok(Spanned::new(name.range(), LogTable { levels, to }))
    }
}
