"""The counters of a simulated server, in Prometheus text under vLLM's or SGLang's names. They count for real.

Times are those the simulation itself took, so a client's own figures can be checked against the server's.
Stdlib only.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
HISTOGRAMS = {
    "time_to_first_token_seconds": "Histogram of time to first token in seconds.",
    "inter_token_latency_seconds": "Histogram of inter-token latency in seconds.",
    "request_time_per_output_token_seconds": "Histogram of time_per_output_token_seconds per request.",
    "request_queue_time_seconds": "Histogram of time spent in WAITING phase for request.",
    "request_prefill_time_seconds": "Histogram of time spent in PREFILL phase for request.",
    "request_decode_time_seconds": "Histogram of time spent in DECODE phase for request.",
    "e2e_request_latency_seconds": "Histogram of e2e request latency in seconds.",
}


class Histogram:
    def __init__(self) -> None:
        self.buckets = [0] * (len(SECONDS) + 1)
        self.total = 0.0
        self.count = 0

    def add(self, value: float) -> None:
        self.total += value
        self.count += 1
        self.buckets[next((i for i, top in enumerate(SECONDS) if value <= top), len(SECONDS))] += 1


class Metrics:
    def __init__(self, engine: str, model: str, kv_tokens: int) -> None:
        self._engine, self._model, self.kv_tokens = engine, model, kv_tokens
        self.histograms = {name: Histogram() for name in HISTOGRAMS}
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.finished: dict[str, int] = {"stop": 0, "length": 0, "abort": 0}
        self.running = 0
        self.waiting = 0
        self.held_tokens = 0

    def done(self, *, queued: float, first: float, stamps: Sequence[float], start: float, prompt: int, reason: str) -> None:
        """One request has ended; `stamps` is when each token left, `first` the time to the first."""
        made = len(stamps)
        self.finished[reason] = self.finished.get(reason, 0) + 1
        self.prompt_tokens += prompt
        self.generation_tokens += made
        add = {name: histogram.add for name, histogram in self.histograms.items()}
        add["request_queue_time_seconds"](queued)
        if not made:
            return
        add["time_to_first_token_seconds"](first)
        add["request_prefill_time_seconds"](max(0.0, first - queued))
        add["request_decode_time_seconds"](stamps[-1] - stamps[0])
        add["e2e_request_latency_seconds"](stamps[-1] - start)
        for before, after in pairwise(stamps):
            add["inter_token_latency_seconds"](after - before)
        if made > 1:
            add["request_time_per_output_token_seconds"]((stamps[-1] - stamps[0]) / (made - 1))

    def text(self) -> str:
        return self._sglang() if self._engine == "sglang" else self._vllm()

    def _vllm(self) -> str:
        tags = f'engine="0",model_name="{self._model}"'
        usage = self.held_tokens / self.kv_tokens if self.kv_tokens else 0.0
        out = ["# SIMULATED by gpulease\n"]
        gauges = (
            ("num_requests_running", "Number of requests in model execution batches.", self.running),
            ("num_requests_waiting", "Number of requests waiting to be processed.", self.waiting),
            ("kv_cache_usage_perc", "KV-cache usage. 1 means 100 percent usage.", usage),
        )
        for name, about, value in gauges:
            out.append(f"# HELP vllm:{name} {about}\n# TYPE vllm:{name} gauge\nvllm:{name}{{{tags}}} {float(value)}\n")
        counters = (
            ("prompt_tokens", "Number of prefill tokens processed.", self.prompt_tokens),
            ("generation_tokens", "Number of generation tokens processed.", self.generation_tokens),
            ("num_preemptions", "Cumulative number of preemption from the engine.", 0),
            ("prefix_cache_queries", "Prefix cache queries, in terms of number of queried tokens.", self.prompt_tokens),
            ("prefix_cache_hits", "Prefix cache hits, in terms of number of cached tokens.", 0),
        )
        for name, about, value in counters:
            out.append(f"# HELP vllm:{name}_total {about}\n# TYPE vllm:{name}_total counter\nvllm:{name}_total{{{tags}}} {float(value)}\n")
        out.append(
            "# HELP vllm:request_success_total Count of successfully processed requests.\n# TYPE vllm:request_success_total counter\n"
        )
        out += [f'vllm:request_success_total{{{tags},finished_reason="{reason}"}} {float(n)}\n' for reason, n in self.finished.items()]
        out += [self._histogram(f"vllm:{name}", tags, self.histograms[name], about) for name, about in HISTOGRAMS.items()]
        blocks = self.kv_tokens // 16
        out.append("# HELP vllm:cache_config_info Information of the LLMEngine CacheConfig\n# TYPE vllm:cache_config_info gauge\n")
        out.append(f'vllm:cache_config_info{{block_size="16",engine="0",num_gpu_blocks="{blocks}"}} 1.0\n')
        return "".join(out)

    def _sglang(self) -> str:
        tags = f'model_name="{self._model}"'
        values = {
            "num_running_reqs": self.running,
            "num_queue_reqs": self.waiting,
            "token_usage": self.held_tokens / self.kv_tokens if self.kv_tokens else 0.0,
            "cache_hit_rate": 0.0,
            "gen_throughput": 0.0,
            "max_total_num_tokens": self.kv_tokens,
        }
        out = ["# SIMULATED by gpulease\n"]
        out += [f"# TYPE sglang:{name} gauge\nsglang:{name}{{{tags}}} {float(value)}\n" for name, value in values.items()]
        for name, total in (
            ("prompt_tokens", self.prompt_tokens),
            ("generation_tokens", self.generation_tokens),
            ("num_requests", sum(self.finished.values())),
        ):
            out.append(f"# TYPE sglang:{name}_total counter\nsglang:{name}_total{{{tags}}} {float(total)}\n")
        for ours, theirs in (
            ("time_to_first_token_seconds", "time_to_first_token_seconds"),
            ("inter_token_latency_seconds", "inter_token_latency_seconds"),
            ("request_queue_time_seconds", "queue_time_seconds"),
            ("e2e_request_latency_seconds", "e2e_request_latency_seconds"),
        ):
            out.append(self._histogram(f"sglang:{theirs}", tags, self.histograms[ours], theirs))
        return "".join(out)

    def _histogram(self, name: str, tags: str, histogram: Histogram, about: str) -> str:
        out, seen = [f"# HELP {name} {about}\n# TYPE {name} histogram\n"], 0
        for top, count in zip((*map(str, SECONDS), "+Inf"), histogram.buckets, strict=True):
            seen += count
            out.append(f'{name}_bucket{{{tags},le="{top}"}} {float(seen)}\n')
        out.append(f"{name}_count{{{tags}}} {float(histogram.count)}\n{name}_sum{{{tags}}} {histogram.total}\n")
        return "".join(out)
