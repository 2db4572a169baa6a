//! `pktgen`: a light guest and generator on vhost-user sockets, taps and AF_XDP interfaces, for measurements. Prints JSON lines.

use bench::args::Args;
use bench::failure::{Context, Failure, Result, exit};
use bench::pktgen::{End, Kind, Place, Role, Shape, Slice, Stations, To, run, serve};
use bench::sched;
use engine::worker::clock::Clock;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

const HELP: &str = "\
pktgen SOCKET... [--vdpa NODE]... [--tap NAME]... [--packet NAME]... [--xdp NAME]... [--datagrams FROM,TO[,SESSION]]... [--vde DIR]... [--stream ADDR:PORT]... [--cpu N]
    An end on each vDPA device (driven by its ioctls), tap, packet socket (which only sends), AF_XDP interface, UDP socket (which only sends, with a SESSION
    the header of L2TPv3 before each frame), plug of a vde_switch (which only sends), TCP connection (QEMU's framing) and
    vhost-user socket (a guest), in this order. All ends send and take what comes: two that are joined by a switch load it both ways.
What they do:  [--role both|forward|sink|reflect] [--secs 1] [--warm 0.5] [--rate FRAMES/S] [--frames N] [--window N] [--stamps] [--verify]
    forward: only the first sends. Without --rate as fast as frames are taken. --stamps counts latencies, --verify compares
    every byte and number. --frames ends after so many, --window leaves no more than so many under way. --serve reads slices from standard input instead, a line of JSON each:
    {\"role\": \"both\", \"rate\": 1e6, \"warm\": 0.01, \"secs\": 0.2, \"stamps\": false, \"verify\": false}
Frames:        [--size 64[,256...]] [--udp | --tso] [--flows 1] [--to 10.77.0.2:20000] [--to-mac 02:00:00:00:00:02]
               [--macs N [--to-macs all|next|unknown|broadcast]]
    N stations behind each end, each of which sends to one behind every other end, behind the next one, to nobody or to all.
Rings:         [--ring 256] [--packed] [--no-mergeable] [--in-order] [--buffers N]";

fn main() -> ExitCode {
    exit("pktgen", start())
}

fn start() -> Result<()> {
    let mut args = Args::from_env();
    if args.flag("--help") {
        println!("{HELP}");
        return Ok(());
    }
    if let Some(cpu) = args.value("--cpu")? {
        sched::pin(cpu)?;
    }
    let mut shape = shape(&mut args)?;
    let (macs, to): (Option<u32>, Option<To>) = (args.value("--macs")?, args.value("--to-macs")?);
    let slice = Slice {
        role: args.value::<Role>("--role")?.unwrap_or_default(),
        rate: args.value("--rate")?,
        warm: Duration::from_secs_f64(args.value("--warm")?.unwrap_or(0.5)),
        duration: Duration::from_secs_f64(args.value("--secs")?.unwrap_or(1.0)),
        window: args.value("--window")?.unwrap_or(0),
        frames: args.value("--frames")?,
        stamps: args.flag("--stamps"),
        verify: args.flag("--verify"),
    };
    let served = args.flag("--serve");
    let mut places = Vec::new();
    while let Some(path) = args.value("--vdpa")? {
        places.push(Place::Vdpa(path));
    }
    while let Some(name) = args.value("--tap")? {
        places.push(Place::Tap(name));
    }
    while let Some(name) = args.value("--packet")? {
        places.push(Place::Packet(name));
    }
    while let Some(name) = args.value("--xdp")? {
        places.push(Place::Xdp(name));
    }
    while let Some(path) = args.value("--datagrams")? {
        places.push(Place::Datagrams(path));
    }
    while let Some(at) = args.value("--vde")? {
        places.push(Place::Vde(at));
    }
    while let Some(to) = args.value("--stream")? {
        places.push(Place::Stream(to));
    }
    while let Some(word) = args.word() {
        places.push(Place::Socket(PathBuf::from(word)));
    }
    args.finish()?;
    if places.is_empty() {
        return Err(Failure::new("no socket or interface (--help)"));
    }
    if places.iter().any(|place| matches!(place, Place::Stream(_))) && (slice.verify || slice.stamps) {
        return Err(Failure::new("--stream with --verify or --stamps: what it takes is not looked at"));
    }
    let (ends, to) = (places.len() as u32, to.unwrap_or_default());
    shape.stations = macs.map(|each| Stations { each: each.max(1), ends, here: 0, to });
    if shape.stations.is_some() && (slice.verify || slice.stamps) {
        return Err(Failure::new("--macs with --verify or --stamps: an end knows only its own frames"));
    }
    let open = |(here, place)| End::open(place, &shape.at(here));
    let mut ends = places.iter().enumerate().map(open).collect::<Result<Vec<_>>>()?;
    let clock = Clock::calibrate();
    if served {
        return serve(&mut ends, &shape, &clock, std::io::stdin().lock(), std::io::stdout());
    }
    println!("{}", run(&mut ends, &shape, &clock, &slice)?.json());
    Ok(())
}

fn shape(args: &mut Args) -> Result<Shape> {
    let default = Shape::default();
    let (udp, tso) = (args.flag("--udp"), args.flag("--tso"));
    let sizes: Option<String> = args.value("--size")?;
    let sizes = sizes.unwrap_or_else(|| "64".into());
    let sizes = sizes.split(',').map(|word| word.parse().context(format_args!("--size {word}")));
    let to: Option<std::net::SocketAddrV4> = args.value("--to")?;
    Ok(Shape {
        ring: args.value("--ring")?.unwrap_or(default.ring),
        packed: args.flag("--packed"),
        mergeable: !args.flag("--no-mergeable"),
        in_order: args.flag("--in-order"),
        kind: match (udp, tso) {
            (_, true) => Kind::Tso,
            (true, false) => Kind::Udp,
            _ => Kind::Raw,
        },
        sizes: sizes.collect::<Result<_>>()?,
        flows: args.value("--flows")?.unwrap_or(default.flows),
        buffers: args.value("--buffers")?.unwrap_or(default.buffers),
        to: to.map_or(default.to, |to| (*to.ip(), to.port())),
        to_mac: args.value::<String>("--to-mac")?.map_or(Ok(default.to_mac), |text| mac(&text))?,
        stations: None,
    })
}

/// Reads `02:00:00:00:00:01`.
fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .map(|word| u8::from_str_radix(word, 16).context(format_args!("--to-mac {text}")))
        .collect::<Result<_>>()?;
    bytes.try_into().map_err(|_| Failure::new(format!("--to-mac {text}: six bytes")))
}
