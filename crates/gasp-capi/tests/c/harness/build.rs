//! Compilers, and the programs that they build.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;

use crate::source::{Source, include, stem};

/// The libraries that the static library needs. (rustc also names `-lgcc_s`: the compiler adds it
/// by itself, and a fully static program cannot have it.)
const SYSTEM: [&str; 3] = ["-lpthread", "-ldl", "-lm"];
const STRICT: [&str; 6] = ["-Wall", "-Wextra", "-Werror", "-pedantic", "-g", "-O1"];
const SANITIZE: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// How a program is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Link {
    /// With the static library.
    Static,
    /// Fully static.
    AllStatic,
    /// With the shared library.
    Shared,
    /// With the shared library and the sanitizers.
    Sanitized,
}

/// A language and its standard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Language {
    C99,
    C11,
    Cxx17,
}

impl Language {
    fn of(file: &Path) -> Self {
        if is_cxx(file) { Self::Cxx17 } else { Self::C11 }
    }

    fn standard(self) -> &'static str {
        match self {
            Self::C99 => "-std=c99",
            Self::C11 => "-std=c11",
            Self::Cxx17 => "-std=c++17",
        }
    }
}

/// A program that can be run.
pub(crate) struct Built {
    pub(crate) program: PathBuf,
    pub(crate) link: Link,
}

/// Compilers, libraries, and a folder to build in.
pub(crate) struct Toolchain {
    cc: OsString,
    cxx: OsString,
    libraries: PathBuf,
    folder: TempDir,
    next: AtomicUsize,
    /// Why nothing can be built as C++; `None` if it can.
    pub(crate) cxx_lack: Option<String>,
}

/// The standard output of a program; an error with all of its output if it fails.
pub(crate) fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|why| format!("{command:?}: {why}"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?}: {}\n{stdout}{stderr}", output.status))
}

/// Why a tool cannot be used; `None` if it can.
pub(crate) fn tool_lack(tool: &str) -> Option<String> {
    output_of(Command::new(tool).arg("--version")).err().map(|_| format!("{tool} is not installed"))
}

impl Toolchain {
    /// The compilers of this machine, and the libraries next to this test.
    pub(crate) fn find() -> Self {
        let named = |variable, usual: &str| {
            std::env::var_os(variable).unwrap_or_else(|| OsString::from(usual))
        };
        let test = std::env::current_exe().unwrap();
        let libraries = test.parent().unwrap().to_owned();
        for library in ["libgasp_capi.a", "libgasp_capi.so"] {
            let path = libraries.join(library);
            assert!(
                path.exists(),
                "{} is missing: `cargo build -p gasp-capi` builds it",
                path.display()
            );
        }
        let cxx = named("CXX", "c++");
        Self {
            cc: named("CC", "cc"),
            cxx_lack: tool_lack(&cxx.to_string_lossy()),
            cxx,
            libraries,
            folder: TempDir::new().unwrap(),
            next: AtomicUsize::new(0),
        }
    }

    /// Why nothing can be built with the sanitizers; `None` if it can.
    pub(crate) fn sanitizer_lack(&self) -> Option<String> {
        self.lack(&SANITIZE).map(|_| "the compiler has no sanitizers".to_owned())
    }

    /// Why no program can be fully static; `None` if one can.
    pub(crate) fn static_lack(&self) -> Option<String> {
        self.lack(&["-static"]).map(|_| "there is no static C library".to_owned())
    }

    /// Why an empty program cannot be built with these options and run; `None` if it can.
    fn lack(&self, options: &[&str]) -> Option<String> {
        let source = self.folder.path().join("empty.c");
        std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
        let program = self.folder.path().join("empty");
        let mut compile = Command::new(&self.cc);
        compile.args(options).arg(&source).arg("-o").arg(&program);
        let worked = output_of(&mut compile).and_then(|_| output_of(&mut Command::new(&program)));
        worked.err()
    }

    /// Builds programs with the static library, several at a time.
    pub(crate) fn build_all(&self, sources: Vec<Source>) -> Vec<(Source, Result<Built, String>)> {
        let total = sources.len();
        let left = Mutex::new(sources.into_iter().enumerate());
        let done = Mutex::new(Vec::with_capacity(total));
        let work = || {
            loop {
                let next = left.lock().unwrap().next();
                let Some((index, source)) = next else { return };
                let built = self.build(&source, Link::Static);
                done.lock().unwrap().push((index, source, built));
            }
        };
        thread::scope(|scope| {
            let workers = thread::available_parallelism().map_or(1, usize::from);
            for _ in 0..workers {
                scope.spawn(work);
            }
        });
        let mut done = done.into_inner().unwrap();
        done.sort_by_key(|(index, ..)| *index);
        done.into_iter().map(|(_, source, built)| (source, built)).collect()
    }

    fn compiler(&self, language: Language, edition: &str) -> Command {
        let cxx = language == Language::Cxx17;
        let mut compile = Command::new(if cxx { &self.cxx } else { &self.cc });
        compile.arg(language.standard()).args(STRICT);
        compile.args(["-x", if cxx { "c++" } else { "c" }]);
        compile.arg("-I").arg(include()).arg(format!("-DQVM_EDITION={edition}"));
        compile
    }

    /// Builds one program.
    pub(crate) fn build(&self, source: &Source, link: Link) -> Result<Built, String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}", source.name.replace('/', "-"));
        let program = self.folder.path().join(&name);
        let mut objects = Vec::new();
        for (index, file) in source.files.iter().enumerate() {
            let object = self.folder.path().join(format!("{name}-{index}.o"));
            self.compile(file, &object, link)?;
            objects.push(object);
        }
        let cxx = source.files.iter().any(|file| is_cxx(file));
        let mut linker = Command::new(if cxx { &self.cxx } else { &self.cc });
        linker.args(objects);
        if link == Link::Sanitized {
            linker.args(SANITIZE);
        }
        if link == Link::AllStatic {
            linker.arg("-static");
        }
        if matches!(link, Link::Static | Link::AllStatic) {
            linker.arg(self.libraries.join("libgasp_capi.a")).args(SYSTEM);
        } else {
            linker.arg("-L").arg(&self.libraries).arg("-lgasp_capi");
            // As DT_RPATH, which takes precedence over LD_LIBRARY_PATH: cargo sets that to a
            // folder that may contain an older library.
            linker.arg("-Wl,--disable-new-dtags");
            linker.arg(format!("-Wl,-rpath,{}", self.libraries.display())).arg("-lpthread");
        }
        output_of(linker.arg("-o").arg(&program))?;
        Ok(Built { program, link })
    }

    fn compile(&self, file: &Path, object: &Path, link: Link) -> Result<(), String> {
        let edition = if stem(file).ends_with("_710") { "710" } else { "800" };
        let mut compile = self.compiler(Language::of(file), edition);
        if link == Link::Sanitized {
            compile.args(SANITIZE).arg("-fno-omit-frame-pointer");
        }
        output_of(compile.arg("-c").arg(file).arg("-o").arg(object)).map(drop)
    }

    /// Compiles a program that includes one header, twice.
    pub(crate) fn check(
        &self,
        header: &str,
        edition: &str,
        language: Language,
    ) -> Result<(), String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let file = self.folder.path().join(format!("header-{number}"));
        let text = format!("#include <{header}>\n#include <{header}>\nint nothing;\n");
        std::fs::write(&file, text).map_err(|why| why.to_string())?;
        let mut compile = self.compiler(language, edition);
        compile.arg("-fsyntax-only").arg(file);
        output_of(&mut compile).map(drop)
    }
}

fn is_cxx(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "cpp")
}
