//! What `gasp vdev check` prints, and its usage.

use serde_json::Value;

use crate::vdev::{Fault, Vdev, gasp};

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

const FAULTS: Fault<'_> = Fault {
    before: "static const char *const list[] = { \"rate\", \"0quiet\", NULL };",
    control: "if (ctrl == VDEV_CTRL_GUEST_CONFIGURED) { \
              printf(\"a line of its own\\n\"); fflush(stdout); \
              vdev_logf(QL_QVM_INFO, vdp, \"all is well with the flux of the vdev, and will be so for as long as it lives\"); } \
              if (ctrl == VDEV_CTRL_STATUS) { qvm_report(\"flux 7\\n\"); return ENOSYS; }",
    read: "return VRS_NORMAL;",
    write: "",
    members: ".option_list = list, .factory_flags = VFF_VDEV_MEM | VFF_INTR_NO | VFF_MUTEX",
};

#[test]
fn the_report_has_everything_at_any_width_and_no_colours() {
    let vdev = Vdev::new(&FAULTS);
    for columns in ["60", "80", "120"] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_gasp"))
            .args(["vdev", "check", "--vdev-path", vdev.folder.path().to_str().unwrap(), "odd"])
            .env("COLUMNS", columns)
            .output()
            .unwrap();
        let text = text(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "vdev odd",
            "edition 8.0",
            "options rate ARGUMENT, quiet",
            "VFF_INTR_NO (has no interrupt)",
            "accesses 4 bytes",
            "registers 8 bytes at mem:0xfa000000, chosen by this check",
            "a line of its own",
            "info: all is well with the flux",
            "flux 7",
            "error: vread: succeeded without a value",
            "→ call guest_cpu_write(gcp, GXF_NONE, oopnd, 1, …)",
            "warning: control(STATUS): returned 38",
            "note: it has no location of its own",
            "1 error, 1 warning",
        ] {
            assert!(words.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "no colours without a terminal");
        let limit: usize = columns.parse().unwrap();
        let long = |line: &&str| {
            let words = line.split_whitespace().map(|word| word.chars().count()).max();
            line.chars().count() > limit && words.is_some_and(|word| word < limit / 2)
        };
        assert_eq!(text.lines().find(long), None, "at {columns} columns");
        assert_eq!(text.lines().find(|line| line.ends_with(' ')), None);
    }
}

#[test]
fn the_json_has_the_fields_of_the_help() {
    let record = Vdev::new(&FAULTS).json(&[]);
    let help = text(&gasp(&["vdev", "check", "--help"]).stdout);
    let words: Vec<&str> = help.split(|letter: char| !letter.is_alphanumeric()).collect();
    for (field, value) in record.as_object().unwrap() {
        assert!(words.contains(&field.as_str()), "{field}");
        for (field, _) in value.as_object().into_iter().flatten() {
            assert!(help.contains(&format!("`{field}`")), "{field}");
        }
    }
    assert_eq!(record["printed"], "a line of its own\na line of its own\na line of its own");
    assert_eq!(record["status"], "flux 7\n");
    assert_eq!(record["log"].as_array().unwrap().len(), 3, "{record:#}");
    assert_eq!(
        record["factory"]["options"][1],
        serde_json::json!({ "name": "quiet", "argument": false })
    );
    assert_eq!(record["factory"]["access_widths"], serde_json::json!([4]));
    for finding in record["findings"].as_array().unwrap() {
        for field in ["severity", "kind", "call", "message", "advice"] {
            assert!(finding.get(field).is_some(), "{field}");
        }
    }
}

#[test]
fn a_vdev_in_this_process_has_the_same_report() {
    let vdev = Vdev::new(&Fault { read: "return VRS_NORMAL;", ..Fault::default() });
    let (there, here) = (vdev.json(&[]), vdev.json(&["--in-process"]));
    assert_eq!(here["findings"], there["findings"]);
    assert_eq!((&here["calls"], &here["reads"]), (&there["calls"], &there["reads"]));
}

#[test]
fn wrong_usage_ends_with_status_2() {
    let vdev = Vdev::new(&Fault::default());
    let path = vdev.path.to_str().unwrap();
    for (args, part) in [
        (&["vdev"][..], "Usage"),
        (&["vdev", "check"], "required"),
        (&["vdev", "check", "no-such-vdev"], "there is no vdev-no-such-vdev.so"),
        (&["vdev", "check", "/no/such/vdev-a.so"], "/no/such/vdev-a.so: there is no such file"),
        (&["vdev", "check", path, "--loc", "mem:lots"], "--loc mem:lots: "),
        (&["vdev", "check", path, "--intr", "x:y:z"], "`intr x:y:z`: expected a line"),
        (&["vdev", "check", path, "--loc", "io:0x300"], "cannot be at ports"),
        (&["vdev", "check", path, "--limit", "0"], "--limit"),
    ] {
        let output = gasp(args);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(part), "{part} is not in\n{said}");
        assert!(!said.contains("check.qvmconf"), "{said}");
    }
    let output = gasp(&["vdev", "check", "no-such-vdev", "--json"]);
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains("--vdev-path"), "{error}");
}

#[test]
fn a_path_that_is_like_an_option_is_a_path() {
    let vdev = Vdev::new(&Fault::default());
    let name = vdev.folder.path().join("-a.so");
    std::fs::rename(&vdev.path, &name).unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_gasp"))
        .current_dir(vdev.folder.path())
        .args(["vdev", "check", "--json", "--", "-a.so"])
        .output()
        .unwrap();
    let record: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(record["findings"][0]["kind"], "name", "{record:#}");
}
