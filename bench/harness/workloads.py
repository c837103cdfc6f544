"""What is measured. Each workload is one call of the load generator; README.md says what each is for."""

from dataclasses import dataclass

FANFARE = ["fanfare", "fanfare-httpserver"]
FAST = [*FANFARE, "limit", "nchan", "axum"]
ALL = [*FAST, "actix-lab", "better-sse", "pushpin"]
DURABLE = ["fanfare", "fanfare-file", "fanfare-full"]


@dataclass(frozen=True)
class Workload:
    title: str
    args: str
    servers: list[str]
    # The figure that it is for: a field of the generator's report.
    key: str
    # Of the essentials, or only by name.
    essential: bool = False


CPU, RATE, MEMORY, PUBLISHES = "cpu_us_per_delivery", "deliveries_per_s", "bytes_per_client", "published_per_s"

WORKLOADS = {
    "W1-100": Workload("1,000 clients, one channel, 100 events a second", "--clients 1000 --rate 100", ALL, CPU, True),
    "W1-max": Workload("1,000 clients, one channel, 8 events in flight", "--clients 1000 --window 8", ALL, RATE, True),
    "W2": Workload("10,000 clients, one channel, 10 events a second", "--clients 10000 --rate 10 --settle 2", ALL, CPU, True),
    "W3": Workload("5,000 clients on 500 channels, 32 events in flight",
                   "--clients 5000 --channels 500 --publishers 8 --window 32 --settle 2", ALL, RATE, True),
    "W3-own": Workload("5,000 clients, each on 100 of 500 channels by its own choice (Zipf), 100 events a second",
                       "--clients 5000 --channels 500 --follow zipf:100 --publishers 8 --rate 100 --settle 2",
                       [*FANFARE, "limit", "nchan"], CPU),
    "W3-own-max": Workload("the same, 32 events in flight",
                           "--clients 5000 --channels 500 --follow zipf:100 --publishers 8 --window 32 --settle 2",
                           [*FANFARE, "limit", "nchan"], RATE),
    "W4": Workload("10,000 idle clients of one channel", "--clients 10000 --settle 3 --duration 0", ALL, MEMORY, True),
    "W4-own": Workload("10,000 idle clients, each of a channel of its own",
                       "--clients 10000 --channels 10000 --settle 3 --duration 0", ALL, MEMORY),
    "W5": Workload("19,000 clients, one event a second", "--clients 19000 --rate 1 --settle 3 --duration 10", FAST, CPU),
    "W6": Workload("64 publishes in flight over HTTP, one event each",
                   "--clients 1 --channels 64 --publishers 64 --window 0", DURABLE, PUBLISHES),
    "W6-batch": Workload("64 publishes in flight over HTTP, 100 events each",
                         "--clients 1 --channels 64 --publishers 64 --window 0 --batch 100", DURABLE, PUBLISHES),
    "W6-ws": Workload("64 publishes in flight over 4 WebSocket connections, one event each",
                      "--clients 1 --channels 4 --publishers 4 --depth 16 --window 0 --over ws --publish /ws", DURABLE, PUBLISHES),
    "W7": Workload("100 clients come back at once for 10,000 events each",
                   "--clients 100 --missed 10000 --batch 500", [*FANFARE, "fanfare-file"], RATE),
    "W7-storm": Workload("10,000 clients come back at once, each for 10 of 10,000 events on 1,000 channels",
                         "--clients 10000 --channels 1000 --missed 10000 --batch 10 --connecting 10000",
                         [*FANFARE, "fanfare-file"], RATE),
}

SMOKE = {
    "fan-out": Workload("50 clients, one channel, 100 events a second",
                        "--clients 50 --rate 100 --settle 0.3 --warmup 0.3 --duration 1", [*FANFARE, "limit"], CPU),
    "flat-out": Workload("100 clients on 10 channels, 8 events in flight, from two processes",
                         "--clients 100 --channels 10 --publishers 2 --processes 2 --settle 0.3 --warmup 0.3 --duration 1",
                         [*FANFARE, "limit"], RATE),
    "own": Workload("50 clients, each on 5 of 20 channels by its own choice",
                    "--clients 50 --channels 20 --follow zipf:5 --settle 0.3 --warmup 0.3 --duration 1",
                    ["fanfare", "limit"], RATE),
    "batches": Workload("8 publishes in flight, 10 events each",
                        "--clients 1 --channels 8 --publishers 8 --window 0 --batch 10 --settle 0.3 --warmup 0.3 --duration 1",
                        ["fanfare"], PUBLISHES),
    "sockets": Workload("4 publishes in flight over one WebSocket",
                        "--clients 1 --publishers 1 --depth 4 --window 0 --over ws --publish /ws --settle 0.3 --warmup 0.3 --duration 1",
                        ["fanfare"], PUBLISHES),
    "back": Workload("50 clients come back at once for 500 events each",
                     "--clients 50 --missed 500 --batch 50", ["fanfare"], RATE),
}
