//! Loads the files of vdevs, each once, and finds their factories.
#![allow(unsafe_code, reason = "loads shared objects")]

use core::cell::RefCell;
use core::ffi::{CStr, c_void};
use core::ptr::NonNull;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gasp::Errno;
use parking_lot::Mutex;

use crate::abi::Edition;
use crate::doing::{self, Doing};
use crate::error::VdevError;
use crate::factory::{Factory, Registered};

/// Where vdevs are searched.
///
/// A vdev `trace` is in the file `vdev-trace.so`: in one of the folders, in their order, or where
/// the dynamic loader finds it (`LD_LIBRARY_PATH`, then the folders of the system). A name with a
/// slash, or that ends in `.so`, is a path.
#[derive(Clone, Debug, Default)]
pub struct Loader {
    folders: Vec<PathBuf>,
}

/// The factories of each file that was loaded, by the dynamic loader's handle. A file is loaded
/// once, and never unloaded: its constructors run once, and threads of it may be running.
static LOADED: Mutex<BTreeMap<usize, File>> = Mutex::new(BTreeMap::new());

/// What a file has: factories, or the error that it was refused with.
type File = Result<Vec<Arc<Factory>>, (Errno, String)>;

thread_local! {
    /// What the constructors of the file that this thread is loading have registered.
    static REGISTERED: RefCell<Option<Vec<Registered>>> = const { RefCell::new(None) };
}

impl Loader {
    /// A loader that searches these folders first.
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Self { folders }
    }

    /// The factory of the vdevs that are called `name`.
    ///
    /// # Errors
    /// If there is no such file, it cannot be loaded, or its factory is not valid.
    pub fn load(&self, name: &str) -> Result<Arc<Factory>, VdevError> {
        let by_path = name.contains('/') || name.ends_with(".so");
        let file = match by_path {
            true => PathBuf::from(name),
            false => self.find(name),
        };
        let wanted = name_of(Path::new(name));
        // Two threads that load the same file would each miss what the other's constructors
        // register.
        let mut loaded = LOADED.lock();
        let (handle, registered) = open(&file, by_path)?.map_err(|why| match why {
            None => VdevError::NotFound { name: name.into(), folders: self.folders.clone() },
            Some(why) => VdevError::NotLoaded { file: file.display().to_string(), why },
        })?;
        if !registered.is_empty() {
            let checked = factories(&file, &registered)
                .and_then(|factories| apart(&loaded, &factories).map(|()| factories));
            match checked {
                Ok(factories) => _ = loaded.insert(handle, Ok(factories)),
                Err(error) => {
                    loaded.insert(handle, Err((error.errno(), error.to_string())));
                    return Err(error);
                }
            }
        }
        match loaded.get(&handle) {
            Some(Ok(factories)) => choose(factories, &wanted, &file),
            Some(Err((errno, why))) => Err(VdevError::Before { errno: *errno, why: why.clone() }),
            None => choose(&[], &wanted, &file),
        }
    }

    /// The file of a vdev in the folders; else its name alone, which the dynamic loader looks for.
    fn find(&self, name: &str) -> PathBuf {
        let file = match name.starts_with("vdev-") {
            true => format!("{name}.so"),
            false => format!("vdev-{name}.so"),
        };
        let there = self.folders.iter().map(|folder| folder.join(&file));
        there.into_iter().find(|path| path.exists()).unwrap_or_else(|| file.into())
    }
}

/// Refuses factories of names that others have.
fn apart(loaded: &BTreeMap<usize, File>, factories: &[Arc<Factory>]) -> Result<(), VdevError> {
    for factory in factories {
        let mut others = loaded.values().flatten().flatten();
        let Some(first) = others.find(|other| other.name == factory.name) else { continue };
        let (first, second) = (first.file.clone(), factory.file.clone());
        if first == second {
            let why = "it has changed since it was loaded; restart the program to load the new one";
            return Err(VdevError::NotLoaded { file: second, why: why.to_owned() });
        }
        return Err(VdevError::Twice { name: factory.name.clone(), first, second });
    }
    Ok(())
}

fn choose(
    factories: &[Arc<Factory>],
    wanted: &str,
    file: &Path,
) -> Result<Arc<Factory>, VdevError> {
    if let Some(found) = factories.iter().find(|factory| factory.name == wanted) {
        return Ok(Arc::clone(found));
    }
    match factories {
        [] => Err(VdevError::NoFactory { file: file.display().to_string() }),
        [only] => Ok(Arc::clone(only)),
        several => Err(VdevError::Other {
            file: file.display().to_string(),
            name: wanted.into(),
            others: several.iter().map(|factory| format!("`{}`", factory.name)).collect(),
        }),
    }
}

/// The name of the vdevs of a file: `trace` for `vdev-trace.so`.
fn name_of(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".so").unwrap_or(&name);
    name.strip_prefix("vdev-").unwrap_or(name).to_owned()
}

/// Reads what the constructors of a file have registered.
fn factories(file: &Path, registered: &[Registered]) -> Result<Vec<Arc<Factory>>, VdevError> {
    let mut factories: Vec<Arc<Factory>> = Vec::new();
    for &one in registered {
        let file_name = one.factory.and_then(file_of).unwrap_or_else(|| file.display().to_string());
        let by_file = name_of(Path::new(&file_name));
        let edition =
            Edition::of(one.abi).map_err(|abi| VdevError::Abi { file: file_name.clone(), abi })?;
        // SAFETY: `vdev_register_factory()` asks for a structure with a static lifetime, as its
        // header describes it; a file is never unloaded, and its constructors have returned.
        let factory = unsafe { Factory::read(one, edition, &file_name, &by_file) };
        let factory = factory.map_err(|(factory, why)| VdevError::Factory {
            file: file_name.clone(),
            factory,
            why,
        })?;
        if let Some(first) = factories.iter().find(|other| other.name == factory.name) {
            let (first, second) = (first.file.clone(), factory.file.clone());
            return Err(VdevError::Twice { name: factory.name, first, second });
        }
        factories.push(Arc::new(factory));
    }
    Ok(factories)
}

/// The file that an address is in.
fn file_of(address: NonNull<c_void>) -> Option<String> {
    // SAFETY: `Dl_info` is plain data, for which zeros are valid.
    let mut info: libc::Dl_info = unsafe { core::mem::zeroed() };
    // SAFETY: `info` is valid for writes; dladdr(3) takes any address.
    if unsafe { libc::dladdr(address.as_ptr(), &raw mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: dladdr(3) has set it to the name of a loaded file, a string that stays as it is while
    // the file is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(name.to_string_lossy().into_owned())
}

/// What opening a file gives: the handle, and what its constructors have registered; or the dynamic
/// loader's message, `None` if there is no such file.
type Opened = Result<(usize, Vec<Registered>), Option<String>>;

/// Loads a file, unless it is loaded already.
fn open(file: &Path, by_path: bool) -> Result<Opened, VdevError> {
    let refused = |why: &str| {
        Err(VdevError::NotLoaded { file: file.display().to_string(), why: why.to_owned() })
    };
    // Without a slash the dynamic loader would search for it.
    let path = match by_path && !file.as_os_str().as_bytes().contains(&b'/') {
        true => Path::new(".").join(file),
        false => file.to_owned(),
    };
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return refused("its path has a NUL in it");
    };
    doing::report_crashes();
    REGISTERED.set(Some(Vec::new()));
    let name = file.display().to_string();
    let doing =
        Doing { name: &name, what: "its constructor", vdev: None, cpu: None, may_unwind: false };
    // Local: two vdevs may have functions of the same name.
    // SAFETY: `path` is a C string. The constructors of the file run with what the program may do,
    // as for every library that it is linked with: whoever names a vdev trusts its code.
    let handle = doing.run(|| unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) });
    let registered = REGISTERED.take().unwrap_or_default();
    if !handle.is_null() {
        return Ok(Ok((handle.addr(), registered)));
    }
    // SAFETY: dlerror(3) returns NULL or a string of this thread, which is valid until its next call.
    let message = unsafe { libc::dlerror() };
    let message = match message.is_null() {
        true => String::new(),
        // SAFETY: as above.
        false => unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned(),
    };
    Ok(Err(explained(&message, by_path)))
}

/// The dynamic loader's message, with what to do; `None` if there is no such file.
fn explained(message: &str, by_path: bool) -> Option<String> {
    let missing = message.contains("cannot open shared object file: No such file or directory");
    if missing && !by_path && message.starts_with("vdev-") {
        return None;
    }
    let advice = if message.contains("undefined symbol") {
        "; it uses a function that this program does not offer: link it with the library that has \
         it, or see the documentation for what is supported"
    } else if message.contains("invalid ELF header") || message.contains("file too short") {
        "; it is no shared object: build it with `cc -shared -fPIC`"
    } else if message.contains("wrong ELF class") || message.contains("ELFCLASS") {
        "; it is for another machine"
    } else {
        ""
    };
    Some(format!("{message}{advice}"))
}

/// Remembers what a constructor of the file that this thread is loading has registered. Returns
/// whether it is loading one.
pub(crate) fn register(one: Registered) -> bool {
    REGISTERED.with_borrow_mut(|registered| match registered {
        Some(registered) => {
            registered.push(one);
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_after_its_vdev() {
        for (file, name) in [
            ("vdev-trace.so", "trace"),
            ("/a/b/vdev-trace.so", "trace"),
            ("trace.so", "trace"),
            ("vdev-vdev-x.so", "vdev-x"),
            ("vdev-pl011", "pl011"),
        ] {
            assert_eq!(name_of(Path::new(file)), name);
        }
    }

    #[test]
    fn messages_of_the_dynamic_loader_say_what_to_do() {
        let missing = "cannot open shared object file: No such file or directory";
        assert_eq!(explained(&format!("vdev-x.so: {missing}"), false), None);
        // A library that it needs is missing, or the path was given.
        assert!(explained(&format!("libz.so.9: {missing}"), false).is_some());
        assert!(explained(&format!("./vdev-x.so: {missing}"), true).is_some());
        for (message, advice) in [
            ("a.so: undefined symbol: vdev_frob", "does not offer"),
            ("a.so: invalid ELF header", "cc -shared"),
            ("a.so: file too short", "cc -shared"),
            ("a.so: wrong ELF class: ELFCLASS32", "another machine"),
        ] {
            let explained = explained(message, false).unwrap();
            assert!(explained.starts_with(message) && explained.contains(advice), "{explained}");
        }
    }
}
