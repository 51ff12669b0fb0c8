//! What the connector costs beside programs that do the same: `openssl s_client` for `doorward connect`, stunnel and socat (and
//! ghostunnel, if `$GHOSTUNNEL` names it) for `doorward forward`. Processor time of that one process, on a gate of this build and a
//! backend in this process.
//!
//! ```text
//! cargo bench --bench connector                          # a table in Markdown
//! DOORWARD_BENCH_SMOKE=1 cargo bench --bench connector   # seconds: only shows that everything works
//! ```
//!
//! All programs speak TLS 1.3 with AES-128-GCM, which the gate chooses.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use doorward::bundle::{Bundle, BundleKey, BundleRoute, PlainKey, Trust};
use doorward::model::device_name::DeviceName;
use doorward::model::names::{Name, ServerName, ServerNamePattern};
use doorward::model::service::ServiceKind;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustix::process::{Pid, Signal, kill_process};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// How much is measured.
struct Size {
    /// Bytes each way.
    amount: usize,
    connections: u32,
    /// In each, all programs take their turn. The median of the rounds counts.
    rounds: usize,
}

static SIZE: LazyLock<Size> = LazyLock::new(|| {
    let smoke = std::env::var_os("DOORWARD_BENCH_SMOKE").is_some_and(|value| value == "1");
    if smoke {
        Size { amount: 4 << 20, connections: 3, rounds: 1 }
    } else {
        Size { amount: 1 << 30, connections: 200, rounds: 3 }
    }
});

const NAME: &str = "nas.bench.example";

fn main() -> Result<()> {
    let scene = Scene::new()?;
    let programs =
        [Program::Connect, Program::SClient, Program::Forward, Program::Stunnel, Program::Socat, Program::Ghostunnel];
    let mut rows: Vec<_> =
        programs.into_iter().filter_map(|program| Some((program, program.name()?, Vec::new()))).collect();
    for _ in 0..SIZE.rounds {
        for (program, _, measured) in &mut rows {
            measured.push(if program.is_stdio() { scene.stdio(*program)? } else { scene.forwarder(*program)? });
        }
    }
    println!("| program | CPU s per GiB down | CPU s per GiB up | CPU ms per connection |\n|---|---|---|---|");
    for (_, name, measured) in rows {
        let [down, up, connection] = [0, 1, 2].map(|which| median(measured.iter().map(|round| round[which])));
        println!("| {name} | {down:.2} | {up:.2} | {:.2} |", connection * 1000.0);
    }
    Ok(())
}

/// In seconds.
fn median(times: impl Iterator<Item = Duration>) -> f64 {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Program {
    Connect,
    SClient,
    Forward,
    Stunnel,
    Socat,
    Ghostunnel,
}

impl Program {
    /// `None` if it is not there.
    fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::Connect => "doorward connect",
            Self::SClient => "openssl s_client",
            Self::Forward => "doorward forward",
            Self::Stunnel => "stunnel",
            Self::Socat => "socat (a process a connection)",
            Self::Ghostunnel => {
                std::env::var_os("GHOSTUNNEL")?;
                "ghostunnel client"
            }
        })
    }

    const fn is_stdio(self) -> bool {
        matches!(self, Self::Connect | Self::SClient)
    }
}

struct Scene {
    folder: tempfile::TempDir,
    gate: Child,
    port: u16,
}

impl Drop for Scene {
    fn drop(&mut self) {
        end(&mut self.gate);
    }
}

fn end(child: &mut Child) {
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let _ = child.wait();
}

/// What a connection asks the backend for with its first byte.
const DOWN: u8 = b'd';
const UP: u8 = b'u';
const PING: u8 = b'p';

fn serve(mut stream: TcpStream, block: &[u8]) -> Option<()> {
    let mut asked = [0];
    stream.read_exact(&mut asked).ok()?;
    match asked[0] {
        DOWN => {
            let mut left = SIZE.amount;
            while left > 0 {
                let count = left.min(block.len());
                stream.write_all(&block[..count]).ok()?;
                left -= count;
            }
        }
        UP => {
            let mut buffer = vec![0; 256 * 1024];
            let mut left = SIZE.amount;
            while left > 0 {
                left -= stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
            }
            stream.write_all(b"k").ok()?;
        }
        _ => stream.write_all(b"k").ok()?,
    }
    stream.shutdown(Shutdown::Write).ok()?;
    let mut rest = [0; 1024];
    while stream.read(&mut rest).ok()? > 0 {}
    Some(())
}

impl Scene {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let backend = listener.local_addr()?;
        let block: Arc<[u8]> = vec![0x5a; 256 * 1024].into();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let block = Arc::clone(&block);
                thread::spawn(move || serve(stream, &block));
            }
        });
        let path = |name: &str| folder.path().join(name);
        let authority = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "Bench");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&authority)?;
        fs::write(path("ca.pem"), root.pem())?;
        let issuer = Issuer::new(params, authority);
        let issue = |name: &str, usage: ExtendedKeyUsagePurpose, names: Vec<String>| -> Result<_> {
            let mut params = CertificateParams::new(names)?;
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![usage];
            params.use_authority_key_identifier_extension = true;
            params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(30);
            params.not_before = time::OffsetDateTime::now_utc() - time::Duration::days(1);
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &issuer)?;
            fs::write(path(&format!("{name}.pem")), certificate.pem())?;
            fs::write(path(&format!("{name}-key.pem")), key.serialize_pem())?;
            Ok((certificate.der().clone(), key.serialize_der()))
        };
        issue("server", ExtendedKeyUsagePurpose::ServerAuth, vec![NAME.to_owned()])?;
        let (certificate, key) = issue("laptop", ExtendedKeyUsagePurpose::ClientAuth, Vec::new())?;
        fs::write(
            path("doorward.toml"),
            format!(
                "[[listener]]\nname = \"public\"\naddress = \"127.0.0.1:0\"\n\n[log]\nformat = \"json\"\n\n[limits]\n\
                 connection_rate_per_source = \"off\"\npenalties = \"off\"\n\n[certificate]\nchain = \"server.pem\"\nkey = \"server-key.pem\"\n\n\
                 [client_auth]\nmode = \"require_and_verify\"\ntrust = [\"ca.pem\"]\n\n[[route]]\nname = \"nas\"\n\
                 server_names = [\"{NAME}\"]\nbackends = [\"{backend}\"]\nallow = [\"any\"]\n"
            ),
        )?;
        let mut gate = Command::new(env!("CARGO_BIN_EXE_doorward"))
            .args(["run", "--config"])
            .arg(path("doorward.toml"))
            .stdout(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(gate.stdout.take().ok_or("stdout")?).lines();
        let port = loop {
            let line = lines.next().ok_or("the gate does not start")??;
            let line: serde_json::Value = serde_json::from_str(&line)?;
            if line["event"] == "listening" {
                let address: SocketAddr = line["address"].as_str().ok_or("address")?.parse()?;
                break address.port();
            }
        };
        thread::spawn(move || lines.for_each(drop));
        let bundle = Bundle {
            home: ServerName::parse("bench.example")?,
            device: DeviceName::parse("laptop")?,
            address: Some("127.0.0.1".to_owned()),
            port,
            routes: vec![BundleRoute {
                name: Name::parse("nas")?,
                kind: ServiceKind::Other,
                server_name: ServerNamePattern::parse(NAME)?,
            }],
            trust: Trust::Authorities(vec![root.der().clone()]),
            chain: vec![certificate],
            key: BundleKey::Plain(PlainKey::new(&key)),
            renewal: None,
        };
        fs::write(path("laptop.doorward"), bundle.to_text().as_bytes())?;
        Ok(Self { folder, gate, port })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program on stdin and stdout.
    fn command(&self, program: Program) -> Command {
        if program == Program::Connect {
            let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
            command.args(["connect", "nas", "--file"]).arg(self.path("laptop.doorward"));
            return command;
        }
        let mut command = Command::new("openssl");
        command.args(["s_client", "-quiet", "-verify_quiet", "-verify_return_error"]);
        command.args(["-verify_hostname", NAME, "-servername", NAME, "-connect", &format!("127.0.0.1:{}", self.port)]);
        command.arg("-CAfile").arg(self.path("ca.pem")).arg("-cert").arg(self.path("laptop.pem"));
        command.arg("-key").arg(self.path("laptop-key.pem")).stderr(Stdio::null());
        command
    }

    /// Processor time of one process from its start to its end.
    fn one(&self, program: Program, asked: u8) -> Result<Duration> {
        let mut child = self.command(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let pid = child.id();
        let (mut stdin, mut stdout) = (child.stdin.take().ok_or("stdin")?, child.stdout.take().ok_or("stdout")?);
        exchange(&mut stdin, &mut stdout, asked)?;
        // `openssl s_client` does not end before both are closed.
        drop((stdin, stdout));
        let used = ended(pid)?;
        let _ = child.wait();
        Ok(used)
    }

    fn stdio(&self, program: Program) -> Result<[Duration; 3]> {
        let mut connections = Duration::ZERO;
        for _ in 0..SIZE.connections {
            connections += self.one(program, PING)?;
        }
        let start = connections / SIZE.connections;
        let moved = |asked| Ok::<_, Box<dyn Error + Send + Sync>>(self.one(program, asked)?.saturating_sub(start));
        Ok([moved(DOWN)?, moved(UP)?, start])
    }

    fn forwarder(&self, program: Program) -> Result<[Duration; 3]> {
        let free = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = match program {
            Program::Forward => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
                command.args(["forward", &format!("nas={free}"), "--file"]).arg(self.path("laptop.doorward"));
                command
            }
            Program::Stunnel => {
                let config = format!(
                    "foreground = yes\npid =\nsyslog = no\ndebug = err\n[nas]\nclient = yes\naccept = {free}\nconnect = 127.0.0.1:{}\n\
                     sni = {NAME}\ncheckHost = {NAME}\nverifyChain = yes\nCAfile = {}\ncert = {}\nkey = {}\n",
                    self.port,
                    self.path("ca.pem").display(),
                    self.path("laptop.pem").display(),
                    self.path("laptop-key.pem").display(),
                );
                fs::write(self.path("stunnel.conf"), config)?;
                let mut command = Command::new("stunnel4");
                command.arg(self.path("stunnel.conf"));
                command
            }
            Program::Socat => {
                let mut command = Command::new("socat");
                command.args(["-b", "65536"]).arg(format!("TCP4-LISTEN:{},bind=127.0.0.1,fork", free.port()));
                command.arg(format!(
                    "OPENSSL:127.0.0.1:{},snihost={NAME},commonname={NAME},verify=1,cafile={},cert={},key={}",
                    self.port,
                    self.path("ca.pem").display(),
                    self.path("laptop.pem").display(),
                    self.path("laptop-key.pem").display(),
                ));
                command
            }
            _ => {
                let mut command = Command::new(std::env::var_os("GHOSTUNNEL").ok_or("no ghostunnel")?);
                command.args([
                    "client",
                    "--listen",
                    &free.to_string(),
                    "--target",
                    &format!("127.0.0.1:{}", self.port),
                ]);
                command.args(["--override-server-name", NAME, "--quiet", "all", "--cacert"]).arg(self.path("ca.pem"));
                command.arg("--cert").arg(self.path("laptop.pem")).arg("--key").arg(self.path("laptop-key.pem"));
                command
            }
        };
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let result = self.measure(child.id(), free);
        end(&mut child);
        result
    }

    fn measure(&self, pid: u32, local: SocketAddr) -> Result<[Duration; 3]> {
        let connect = || {
            for _ in 0..500 {
                if let Ok(stream) = TcpStream::connect(local) {
                    return Ok(stream);
                }
                thread::sleep(Duration::from_millis(10));
            }
            Err::<_, Box<dyn Error + Send + Sync>>(format!("nothing listens at {local}").into())
        };
        let exchange = |asked| -> Result<()> {
            let stream = connect()?;
            let (mut reader, mut writer) = (stream.try_clone()?, stream.try_clone()?);
            exchange(&mut writer, &mut reader, asked)?;
            stream.shutdown(Shutdown::Write)?;
            Ok(())
        };
        exchange(PING)?;
        let mut used = [Duration::ZERO; 3];
        for (used, (asked, times)) in used.iter_mut().zip([(DOWN, 1), (UP, 1), (PING, SIZE.connections)]) {
            let before = used_by(pid)?;
            for _ in 0..times {
                exchange(asked)?;
            }
            // The last ones end.
            thread::sleep(Duration::from_millis(300));
            *used = used_by(pid)?.saturating_sub(before) / times;
        }
        Ok(used)
    }
}

/// Asks the backend and waits for the end of its answer.
fn exchange(writer: &mut impl Write, reader: &mut (impl Read + Send), asked: u8) -> Result<()> {
    thread::scope(|scope| {
        let reading = scope.spawn(move || -> Result<usize> {
            let mut buffer = vec![0; 256 * 1024];
            let mut count = 0;
            let wanted = if asked == DOWN { SIZE.amount } else { 1 };
            while count < wanted {
                match reader.read(&mut buffer)? {
                    0 => return Err(format!("it ended after {count} bytes").into()),
                    more => count += more,
                }
            }
            Ok(count)
        });
        writer.write_all(&[asked])?;
        if asked == UP {
            let block = vec![0x5a; 256 * 1024];
            for _ in 0..SIZE.amount / block.len() {
                writer.write_all(&block)?;
            }
        }
        writer.flush()?;
        reading.join().map_err(|_| "a thread failed")??;
        Ok(())
    })
}

/// The processor time of a process and its children that have ended, in steps of 10 ms (proc(5), `/proc/PID/stat`).
fn used_by(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("stat")?.1.split_whitespace().collect();
    let ticks = fields[11..15].iter().map(|field| field.parse::<u64>().unwrap_or(0)).sum::<u64>();
    Ok(Duration::from_millis(10 * ticks))
}

/// The processor time of a child of this process that ends now, which is not waited for: to the microsecond (getrusage(2) would
/// need it waited for, and counts the gate as well).
fn ended(pid: u32) -> Result<Duration> {
    let file = format!("/proc/{pid}/schedstat");
    let stat = format!("/proc/{pid}/stat");
    let mut last = Duration::ZERO;
    loop {
        // A zombie still has its numbers.
        if let Some(nanoseconds) = fs::read_to_string(&file).ok().and_then(|text| text.split(' ').next()?.parse().ok())
        {
            last = Duration::from_nanos(nanoseconds);
        }
        if fs::read_to_string(&stat)?.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z')) {
            return Ok(last);
        }
        thread::sleep(Duration::from_micros(200));
    }
}
