//! Debian's package manager with a private state: nothing on the machine is changed, and no
//! privilege is needed. Mirror and keyring are the machine's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::unavailable::Unavailable;

/// Debian's keyring, under its older and its newer name.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// The release's name, such as `bookworm`, if this is Debian.
pub(super) fn debian_codename() -> Result<String, Unavailable> {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_string())
    };
    match value("ID") {
        Some(id) if id == "debian" => Ok(value("VERSION_CODENAME").unwrap_or_default()),
        Some(id) => Err(Unavailable::NotDebian(id)),
        None => Err(Unavailable::NotDebian("unknown".into())),
    }
}

/// `apt-get` and `apt-cache` on a private state.
pub(super) struct Apt {
    folder: PathBuf,
    mirror: String,
}

impl Apt {
    /// Prepares the private state in `folder`, for the mirror that the machine uses.
    pub(super) fn new(folder: &Path, codename: &str) -> Result<Self, Unavailable> {
        for part in ["state/lists/partial", "cache/archives/partial", "download"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).map_err(Unavailable::file(path))?;
        }
        let mut apt = Self { folder: folder.to_owned(), mirror: String::new() };
        apt.write("status", "")?;
        apt.write("no-sources", "")?;
        apt.configure("")?;
        apt.mirror = apt.machine_mirror(codename)?;
        let own = format!(
            "Dir::Etc::sourcelist \"{0}/sources.list\"; Dir::Etc::sourceparts \"{0}/none\";\n",
            folder.display()
        );
        apt.configure(&own)?;
        Ok(apt)
    }

    /// Writes the configuration. It is read after the machine's own, whose proxies and
    /// certificates remain in force. The machine's hooks do not: they are for the machine's state.
    fn configure(&self, more: &str) -> Result<(), Unavailable> {
        let folder = self.folder.display();
        let text = format!(
            "#clear APT::Update::Pre-Invoke;\n#clear APT::Update::Post-Invoke;\n\
             #clear APT::Update::Post-Invoke-Success;\n#clear DPkg::Post-Invoke;\n\
             Dir::State \"{folder}/state\"; Dir::State::status \"{folder}/status\";\n\
             Dir::Cache \"{folder}/cache\"; Dir::Log \"{folder}/log\";\n\
             APT::Architecture \"amd64\"; APT::Architectures {{ \"amd64\"; }};\n\
             APT::Sandbox::User \"root\"; APT::Update::Error-Mode \"any\";\n\
             Acquire::Languages \"none\"; Acquire::Retries \"1\";\n\
             Acquire::http::Timeout \"20\"; Acquire::https::Timeout \"20\";\n\
             Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n{more}"
        );
        self.write("apt.conf", &text)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Unavailable> {
        let path = self.folder.join(name);
        fs::write(&path, text).map_err(Unavailable::file(path))
    }

    /// The mirror of the machine's own release. The package manager itself reads the machine's
    /// sources, so every format of them is supported.
    fn machine_mirror(&self, codename: &str) -> Result<String, Unavailable> {
        let text = run(self.command("apt-get").args(["update", "--print-uris"]))?;
        let releases: Vec<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.strip_prefix('\'')?.split('\'').next())
            .filter_map(|uri| uri.strip_suffix("/InRelease")?.split_once("/dists/"))
            .collect();
        let names = [codename, "stable", "testing", "unstable", "sid"];
        let found = names
            .iter()
            .find_map(|name| releases.iter().find(|(_, suite)| !suite.is_empty() && suite == name));
        found.map(|(mirror, _)| (*mirror).to_string()).ok_or(Unavailable::NoMirror)
    }

    /// Fetches the package lists of these suites.
    pub(super) fn update(&self, suites: &[&str]) -> Result<(), Unavailable> {
        let keyring = KEYRINGS.iter().find(|path| Path::new(path).exists());
        let options = keyring.map_or(String::new(), |path| format!("[signed-by={path}] "));
        let source = |suite| format!("deb {options}{} {suite} main\n", self.mirror);
        self.write("sources.list", &suites.iter().map(source).collect::<String>())?;
        run(self.command("apt-get").args(["-q", "update"])).map(drop)
    }

    /// Downloads packages and all their dependencies, as for an empty machine.
    pub(super) fn download_with_dependencies(
        &self,
        suite: &str,
        packages: &[&str],
    ) -> Result<Vec<PathBuf>, Unavailable> {
        let mut command = self.command("apt-get");
        command.args(["-q", "-y", "--download-only", "--no-install-recommends", "-t", suite]);
        run(command.arg("install").args(packages))?;
        archives(&self.folder.join("cache/archives"))
    }

    /// Downloads these packages, without their dependencies.
    pub(super) fn download(
        &self,
        suite: &str,
        packages: &[&str],
    ) -> Result<Vec<PathBuf>, Unavailable> {
        let folder = self.folder.join("download");
        let mut command = self.command("apt-get");
        command.args(["-q", "download"]).current_dir(&folder);
        run(command.args(packages.iter().map(|package| format!("{package}/{suite}"))))?;
        archives(&folder)
    }

    /// The name of a package that `package` needs, found by how it begins.
    pub(super) fn dependency(
        &self,
        suite: &str,
        package: &str,
        prefix: &str,
    ) -> Result<String, Unavailable> {
        let text = run(self.command("apt-cache").args(["show", &format!("{package}/{suite}")]))?;
        let needs = text.lines().filter_map(|line| line.strip_prefix("Depends: "));
        let mut names = needs.flat_map(|needs| needs.split([',', '|', ' ']));
        let found = names.find(|name| name.starts_with(prefix)).map(str::to_string);
        found.ok_or_else(|| Unavailable::package(package, format!("it depends on no {prefix}...")))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C").arg("-c").arg(self.folder.join("apt.conf"));
        command
    }
}

/// A package's name and version, in one line.
pub(super) fn name_and_version(archive: &Path) -> Result<String, Unavailable> {
    let mut command = Command::new("dpkg-deb");
    command.args(["--show", "--showformat", "${Package} ${Version}"]).arg(archive);
    run(&mut command)
}

/// Unpacks a package's files into `folder`. None of its scripts is run.
pub(super) fn unpack(archive: &Path, folder: &Path) -> Result<(), Unavailable> {
    run(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(folder)).map(drop)
}

fn archives(folder: &Path) -> Result<Vec<PathBuf>, Unavailable> {
    let entries = fs::read_dir(folder).map_err(Unavailable::file(folder))?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut archives: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect();
    archives.sort();
    Ok(archives)
}

/// Runs a command to its end; returns its standard output, unless that is redirected.
pub(super) fn run(command: &mut Command) -> Result<String, Unavailable> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |why: String| Unavailable::Program { program, why };
    match command.output() {
        Err(error) => Err(failed(error.to_string())),
        Ok(Output { status, stdout, .. }) if status.success() => {
            Ok(String::from_utf8_lossy(&stdout).into_owned())
        }
        Ok(Output { status, stderr, .. }) => {
            let text = String::from_utf8_lossy(&stderr);
            let mut lines = text.lines().filter(|line| !line.trim().is_empty());
            let first = text.lines().find(|line| line.starts_with("E:")).or_else(|| lines.next());
            Err(failed(first.map_or_else(|| status.to_string(), |line| line.trim().to_string())))
        }
    }
}
