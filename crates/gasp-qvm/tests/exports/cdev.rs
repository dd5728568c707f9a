//! Character devices: their options, files and pipes, and what the functions return.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gasp_qvm::{Answer, Instance, Space, VdevError};

use crate::board::{Board, at, compiled, start, until};
use crate::support::{Guests, Library};

/// Calls a function for each register: reads return its result, writes output the bytes.
const SOURCE: &str = r#"
static const char *const options[] = { CDEV_OPTIONS, "size", "0lazy", NULL };
struct state { struct cdev_state cdev; volatile unsigned inputs, outputs, is_lazy; };
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct state *const state = vdp->v_device;
    struct cdev_state *const cds = &state->cdev;
    if (ctrl == VDEV_CTRL_OPTIONS_START) {
        CHECK(cdev_control(cds, ctrl, arg) == EINVAL);
        CHECK(cdev_setup(cds, vdp, (1u << 20) + 1) == EINVAL && cdev_setup(NULL, vdp, 1) == EINVAL);
        CHECK(cdev_setup(cds, NULL, 8) == EINVAL && cdev_setup(cds, MADE_UP, 8) == EINVAL);
        CHECK(cdev_setup(cds, vdp, 1u << 20) == EOK);
        memset(cds, 0xff, sizeof(*cds));
        CHECK(cdev_setup(cds, vdp, 8) == EOK);
        CHECK(cds->vdev == vdp && cds->in.fd == -1 && cds->out.fd == -1);
        CHECK(cds->in.size == 8 && cds->out.size == 8 && cds->in.buff && cds->out.buff);
        CHECK(cds->in.name == NULL && cdev_output_empty(cds) && !cdev_input_available(cds));
        CHECK(cds->ev_in.sigev_notify == SIGEV_THREAD);
    }
    if (ctrl == VDEV_CTRL_FIRST_OPTIDX + CDEV_OPT_NUM_OPTS)
        CHECK(cdev_setup(cds, vdp, (unsigned)atoi(arg)) == EOK);
    if (ctrl == VDEV_CTRL_FIRST_OPTIDX + CDEV_OPT_NUM_OPTS + 1)
        state->is_lazy = 1;
    if (ctrl == VDEV_CTRL_GUEST_STARTING)
        CHECK(cdev_setup(cds, vdp, 8) == EPERM && cds->vdev == vdp);
    return cdev_control(cds, ctrl, arg);
}
#if QVM_EDITION == 800
static int pulse(vdev_t *vdp, const struct _pulse *pulse)
{
    const int code = pulse->code;
#else
static int pulse(vdev_t *vdp, int8_t code)
{
#endif
    struct state *const state = vdp->v_device;
    if (code == CDEV_INPUT_AVAILABLE_PULSE_CODE) state->inputs++;
    if (code == CDEV_OUTPUT_AVAILABLE_PULSE_CODE) {
        state->outputs++;
        if (!state->is_lazy)
            (void)cdev_write_buffer(&state->cdev);
    }
    return EOK;
}
static int result(int count) { return count < 0 ? -errno : count; }
static vdev_ref_status_t vread(vdev_t *vdp, unsigned cookie, const struct qvm_state_block *vopnd,
                               const struct qvm_state_block *oopnd, struct guest_cpu *gcp)
{
    struct state *const state = vdp->v_device;
    struct cdev_state *const cds = &state->cdev;
    int32_t value = 0;
    char data[4] = "";
    (void)cookie;
    switch (vopnd->location & 0xff) {
    case 0x00: value = result(cdev_input_receive(cds)); break;
    case 0x04: /* up to 3 bytes, and their number */
        value = result(cdev_read(cds, data, 3));
        if (value > 0) value |= data[0] << 8 | data[1] << 16 | data[2] << 24;
        break;
    case 0x08: value = result(cdev_write_buffer(cds)); break;
    case 0x0c: value = (int32_t)cdev_input_num_available(cds); break;
    case 0x10: value = (int32_t)cdev_output_num_pending(cds); break;
    case 0x14: value = (int32_t)state->inputs; break;
    case 0x18: value = (int32_t)state->outputs; break;
    case 0x1c: value = result(cdev_write(cds, "0123456789abcdef", 16)); break;
    case 0x20: value = result(cdev_write(cds, "xyz", 3)); break;
    case 0x24: value = cdev_output_full(cds); break;
    case 0x28: value = cds->in.fd; break;
    case 0x2c: value = result(cdev_write(cds, NULL, 1)); break;
    case 0x30: value = result(cdev_read(cds, NULL, UINT32_MAX)); break;
    case 0x34: value = result(cdev_write(cds, NULL, 0)); break;
    case 0x38: value = cds->out.name != NULL && cds->out.name[0] == '/'; break;
    case 0x3c: value = (int32_t)cds->out.flush_timeout; break;
    case 0x40: /* what is not read yet, looked at in the buffer */
        value = cds->in.buff[cds->in.pos] | cds->in.buff[cds->in.avail - 1] << 8;
        break;
    default: return VRS_BUS_ERROR;
    }
    return guest_cpu_to_vrs(guest_cpu_write(gcp, GXF_NONE, oopnd, 1, &value, 4));
}
VDEV(.control = control, .vread = vread, .pulse = pulse, .option_list = options,
     .extra_space = sizeof(struct state))
"#;

const RECEIVE: u64 = 0x00;
const TAKE: u64 = 0x04;
const FLUSH: u64 = 0x08;
const AVAILABLE: u64 = 0x0c;
const PENDING: u64 = 0x10;
const INPUTS: u64 = 0x14;
const OUTPUTS: u64 = 0x18;
const WRITE_16: u64 = 0x1c;
const WRITE_3: u64 = 0x20;

struct Device {
    vdev: Instance,
    _guest: Guests,
}

fn library(edition: u32) -> Library {
    compiled(SOURCE, edition, "chars")
}

fn create(library: &Library, options: &str) -> Result<Device, VdevError> {
    let (guest, board) = (Guests::new(), Arc::<Board>::default());
    let text = format!("vdev chars loc 0xfa000000 {options}");
    let vdev = board.create(&guest, library, &text).and_then(start)?;
    Ok(Device { vdev, _guest: guest })
}

fn device(library: &Library, options: &str) -> Device {
    create(library, options).unwrap_or_else(|error| panic!("{options}: {error}"))
}

impl Device {
    fn call(&self, register: u64) -> i32 {
        let mut data = [0; 4];
        let access = at(Space::Memory, 0xfa00_0000 + register);
        assert_eq!(self.vdev.read(access, &mut data), Answer::Done);
        i32::from_le_bytes(data)
    }

    fn take(&self) -> Vec<u8> {
        match self.call(TAKE) {
            0 => Vec::new(),
            word => {
                let [count, data @ ..] = word.to_le_bytes();
                data[..usize::from(count)].to_vec()
            }
        }
    }
}

fn pipe(path: &Path) {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
}

/// The end of a pipe that is read, without waiting.
fn reader(path: &Path) -> fs::File {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
}

fn arrived(from: &mut fs::File) -> Vec<u8> {
    let mut all = Vec::new();
    match from.read_to_end(&mut all) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => panic!("{error}"),
        _ => all,
    }
}

#[test]
fn input_of_a_file_ends_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("input");
    fs::write(&path, "hello, world").unwrap();
    for edition in [800, 710] {
        let device = device(&library(edition), &format!("hostdev <{}", path.display()));
        until("a pulse", || device.call(INPUTS) == 1);
        assert_eq!((device.call(AVAILABLE), device.take()), (0, vec![]), "it is not received yet");
        assert_eq!((device.call(RECEIVE), device.call(AVAILABLE)), (8, 8));
        assert_eq!(device.call(0x40).to_le_bytes(), [b'h', b'w', 0, 0], "in the buffer");
        assert_eq!(device.call(RECEIVE), 0, "there is no room");
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(device.call(INPUTS), 1, "nothing is to be done about more");
        assert_eq!(device.take(), b"hel");
        until("another pulse", || device.call(INPUTS) == 2);
        assert_eq!((device.call(RECEIVE), device.call(AVAILABLE)), (3, 8));
        assert_eq!([device.take(), device.take(), device.take()].concat(), b"lo, worl");
        assert_eq!((device.call(RECEIVE), device.take()), (1, b"d".to_vec()));
        assert_eq!(device.call(RECEIVE), -libc::EPIPE);
        assert_eq!(device.call(RECEIVE), -libc::EPIPE);
        // Output is discarded: there is none.
        assert_eq!((device.call(WRITE_16), device.call(PENDING)), (16, 0));
        std::thread::sleep(Duration::from_millis(50));
        let pulses = device.call(INPUTS);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(device.call(INPUTS), pulses, "an end is no input");
    }
}

#[test]
fn output_alone_creates_its_file_and_appends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("output");
    for (edition, expected) in [(800, "0123456789abcdefxyz"), (710, "")] {
        let device = device(&library(edition), &format!("hostdev >{}", path.display()));
        assert_eq!((device.call(WRITE_16), device.call(WRITE_3)), (16, 3));
        assert_eq!((device.call(0x2c), device.call(0x30)), (-libc::EINVAL, -libc::EINVAL));
        assert_eq!((device.call(0x34), device.call(0x38)), (0, 1));
        assert_eq!((device.call(0x28), device.call(RECEIVE)), (-1, 0), "there is no input");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.ends_with("0123456789abcdefxyz") && text.contains(expected), "{text}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap().len(), 2 * 19);
}

#[test]
fn a_pipe_that_is_full_fills_the_buffer_and_then_accepts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    pipe(&path);
    for edition in [800, 710] {
        let mut reader = reader(&path);
        let device = device(&library(edition), &format!("hostdev >{}", path.display()));
        let mut sent = 0;
        loop {
            match device.call(WRITE_16) {
                16 => sent += 16,
                rest => {
                    sent += rest;
                    break;
                }
            }
        }
        assert_eq!((device.call(PENDING), device.call(0x24)), (8, 1), "{sent}");
        assert_eq!((device.call(WRITE_3), device.call(FLUSH), device.call(OUTPUTS)), (0, 0, 0));
        let mut all = arrived(&mut reader);
        until("the rest", || {
            all.extend(arrived(&mut reader));
            device.call(PENDING) == 0
        });
        all.extend(arrived(&mut reader));
        assert_eq!(all.len(), usize::try_from(sent).unwrap());
        assert!(all.iter().zip(b"0123456789abcdef".iter().cycle()).all(|(got, sent)| got == sent));
        assert!(device.call(OUTPUTS) >= 1);
        // Nobody reads any more.
        drop(reader);
        assert_eq!(device.call(WRITE_3), -libc::EPIPE);
        assert_eq!((device.call(FLUSH), device.call(PENDING)), (-libc::EPIPE, 0));
    }
}

#[test]
fn a_batch_is_collected_for_so_long_or_until_the_buffer_is_full() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    pipe(&path);
    for edition in [800, 710] {
        let mut reader = reader(&path);
        let options = format!("hostdev >{} batch 1000000", path.display());
        let device = device(&library(edition), &options);
        assert_eq!(device.call(0x3c), 1_000_000);
        let began = Instant::now();
        assert_eq!((device.call(WRITE_3), device.call(WRITE_3)), (3, 3));
        assert_eq!((device.call(PENDING), arrived(&mut reader)), (6, vec![]));
        until("the batch", || device.call(PENDING) == 0);
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(1000), "{took:?}");
        assert_eq!((arrived(&mut reader), device.call(OUTPUTS)), (b"xyzxyz".to_vec(), 1));
        // A batch that fills the buffer is complete at once.
        let began = Instant::now();
        assert_eq!(device.call(WRITE_16), 16);
        until("a full buffer", || device.call(PENDING) == 0);
        assert_eq!(arrived(&mut reader), b"0123456789abcdef");
        assert!(began.elapsed() < Duration::from_millis(900));
        // The end writes what is left.
        assert_eq!((device.call(WRITE_3), arrived(&mut reader)), (3, vec![]));
        assert!(device.vdev.terminate().is_empty());
        assert_eq!(arrived(&mut reader), b"xyz");
    }
}

#[test]
fn output_stays_in_order_and_a_vdev_is_told_once_that_it_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    pipe(&path);
    for edition in [800, 710] {
        let mut reader = reader(&path);
        let device = device(&library(edition), &format!("lazy hostdev >{}", path.display()));
        let mut sent = 0;
        while device.call(PENDING) == 0 {
            assert_eq!(device.call(WRITE_3), 3);
            sent += 3;
        }
        let mut all = arrived(&mut reader);
        until("a pulse", || device.call(OUTPUTS) == 1);
        assert_eq!((device.call(WRITE_3), device.call(OUTPUTS)), (3, 1));
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(
            (arrived(&mut reader), device.call(OUTPUTS)),
            (vec![], 1),
            "it is in the buffer"
        );
        assert_eq!((device.call(FLUSH), device.call(PENDING)), (sent + 3 - all.len() as i32, 0));
        all.extend(arrived(&mut reader));
        assert!(all.iter().zip(b"xyz".iter().cycle()).all(|(got, sent)| got == sent));
        assert_eq!(all.len() as i32, sent + 3);
    }
}

#[test]
fn without_a_buffer_the_host_device_is_accessed_directly() {
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["input", "output"].map(|name| folder.path().join(name));
    pipe(&input);
    pipe(&output);
    for edition in [800, 710] {
        let mut reader = reader(&output);
        let options =
            format!("size 0 batch 500 hostdev <{} hostdev >{}", input.display(), output.display());
        // `size` comes first: the test sets the device up again.
        let device = device(&library(edition), &options);
        assert_eq!(device.take(), b"", "nothing is there");
        let mut writer = fs::OpenOptions::new().write(true).open(&input).unwrap();
        writer.write_all(b"abcd").unwrap();
        until("a pulse", || device.call(INPUTS) >= 1);
        assert_eq!((device.call(RECEIVE), device.call(AVAILABLE)), (0, 0), "no buffer");
        assert_eq!([device.take(), device.take(), device.take()].concat(), b"abcd");
        assert_eq!((device.call(WRITE_3), device.call(PENDING)), (3, 0));
        assert_eq!(arrived(&mut reader), b"xyz");
        // A pipe goes on with its next writer.
        drop(writer);
        assert_eq!(device.call(TAKE), 0);
        let mut writer = fs::OpenOptions::new().write(true).open(&input).unwrap();
        writer.write_all(b"ef").unwrap();
        until("the next writer", || device.take() == b"ef");
    }
}

#[test]
fn a_host_device_that_is_not_there_stops_the_start_unless_it_is_delayed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later");
    for edition in [800, 710] {
        let library = library(edition);
        let hostdev = format!("hostdev {}", path.display());
        let text = create(&library, &hostdev).err().unwrap().to_string();
        for part in ["vdev `chars`", "later", "No such file"] {
            assert!(text.contains(part), "{text}");
        }
        // Until then output is kept, as far as there is room.
        let device = device(&library, &format!("{hostdev} delayed forever"));
        assert_eq!((device.call(WRITE_16), device.call(WRITE_3), device.call(PENDING)), (8, 0, 8));
        fs::write(&path, "").unwrap();
        until("the file", || fs::read(&path).unwrap() == b"01234567");
        until("room", || device.call(PENDING) == 0);
        assert_eq!(device.call(WRITE_3), 3);
        drop(device);
        assert_eq!(fs::read(&path).unwrap(), b"01234567xyz");
        fs::remove_file(&path).unwrap();
        // It is given up at once: output is discarded.
        let device = self::device(&library, &format!("{hostdev} delayed 0"));
        assert_eq!((device.call(WRITE_16), device.call(PENDING)), (16, 0));
        assert_eq!(device.call(RECEIVE), 0);
        let status = device.vdev.status();
        assert!(status.contains("input none"), "{status}");
    }
}

#[test]
fn nothing_is_opened_before_the_guest_is_complete_nor_if_it_is_delayed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("created");
    let library = library(800);
    let (guest, board) = (Guests::new(), Arc::<Board>::default());
    let text = format!("vdev chars loc 0xfa000000 hostdev >{}", path.display());
    let vdev = board.create(&guest, &library, &text).unwrap();
    vdev.assign().unwrap();
    assert!(!path.exists());
    vdev.configured().unwrap();
    assert!(path.exists());
    fs::remove_file(&path).unwrap();
    let device = device(&library, &format!("hostdev >{} delayed 5", path.display()));
    assert!(!path.exists());
    assert_eq!((device.call(WRITE_3), fs::read(&path).unwrap()), (3, b"xyz".to_vec()));
}

#[test]
fn arguments_that_are_none_are_refused_with_their_line() {
    let library = library(800);
    for (option, argument) in [
        ("hostdev", "<"),
        ("delayed", "soon"),
        ("delayed", "-1"),
        ("batch", "1s"),
        ("batch", "10000001"),
    ] {
        let text = create(&library, &format!("{option} {argument}")).err().unwrap().to_string();
        for part in ["test.qvmconf:2", &format!("`{option} {argument}`"), "Invalid argument"] {
            assert!(text.contains(part), "{text}");
        }
    }
}

#[test]
fn the_end_of_a_vdev_that_forgets_its_device_closes_it() {
    const FORGETS: &str = r#"
static const char *const options[] = { CDEV_OPTIONS, NULL };
static int control(vdev_t *vdp, vdev_ctrl_options_t ctrl, const char *arg)
{
    struct cdev_state *const cds = vdp->v_device;
    if (ctrl == VDEV_CTRL_OPTIONS_START)
        return cdev_setup(cds, vdp, 16);
    if (ctrl == VDEV_CTRL_GUEST_STARTING)
        return cdev_write(cds, "pending", 7) == 7 ? EOK : EIO;
    return ctrl == VDEV_CTRL_TERMINATE ? EOK : cdev_control(cds, ctrl, arg);
}
VDEV(.control = control, .option_list = options, .extra_space = sizeof(struct cdev_state))
"#;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("output");
    for edition in [800, 710] {
        let library = compiled(FORGETS, edition, "forgets");
        let (guest, board) = (Guests::new(), Arc::<Board>::default());
        let text = format!("vdev forgets hostdev >{} batch 10000000", path.display());
        let vdev = board.create(&guest, &library, &text).and_then(start).unwrap();
        let open = || {
            let files = fs::read_dir("/proc/self/fd").unwrap();
            files
                .filter(|fd| fs::read_link(fd.as_ref().unwrap().path()).is_ok_and(|to| to == path))
                .count()
        };
        assert_eq!(open(), 1);
        assert!(vdev.terminate().is_empty());
        assert_eq!((open(), fs::read(&path).unwrap()), (0, b"pending".to_vec()));
        fs::remove_file(&path).unwrap();
    }
}
