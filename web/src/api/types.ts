// The JSON shapes of the native API, mirrored by hand from the server's `api/types.rs`.
// Nothing else in the page knows them by another name, so that this file can become re-exports of a generated schema.d.ts.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

export interface Page<T> {
  items: T[]
  next_cursor: string | null
}

export interface EventJson {
  id: number
  event_id: string
  ts_ms: number
  received_ms: number
  source: string
  app: string
  session_id: string
  agent_id?: string
  agent_type?: string
  prompt_id?: string
  tool_use_id?: string
  user?: string
  host?: string
  model?: string
  type: string
  tool_name?: string
  summary: string
  metrics: MetricsJson
  error?: ErrorJson
  file_operations: FileOperationJson[]
  git_operations?: GitOperationJson
  tool_chain?: ToolChainJson
  warnings: WarningJson[]
  issues: Json[]
  payload?: Json
  payload_bytes: number
  payload_truncated: boolean
  redactions: number
}

export interface MetricsJson {
  execution_time_ms: number | null
  token_usage: TokenUsageJson | null
  memory_usage: MemoryUsageJson | null
  output_bytes: number | null
  hook_wall_us: number | null
}

export interface TokenUsageJson {
  input: number
  output: number
  cache_read: number
  cache_write_5m: number
  cache_write_1h: number
  total: number
  cost_usd: number | null
  confidence: string | null
}

export interface TokensJson {
  input: number
  output: number
  cache_read: number
  cache_write_5m: number
  cache_write_1h: number
  total: number
  cache_hit_percent: number | null
}

export interface MemoryUsageJson {
  context_size: number | null
  context_utilization: number | null
  compression_events: number | null
  agent_rss_bytes: number | null
}

export interface ErrorJson {
  type: string
  message: string
  stack_trace?: string
  recoverable: boolean
  retry_count: number
  fingerprint: string
}

export interface FileOperationJson {
  type: string
  path: string
  size_bytes: number | null
  duration_ms: number | null
  lines_added: number | null
  lines_removed: number | null
}

export interface GitOperationJson {
  command: string
  subcommand: string
  branch: string | null
  files_changed: number | null
  insertions: number | null
  deletions: number | null
  commit: string | null
}

export interface ToolChainJson {
  previous_tool: string | null
  next_tool: string | null
  is_parallel: boolean
}

export interface WarningJson {
  rule: string
  severity: string
  message: string
}

export interface CallJson {
  id: number
  tool_use_id: string | null
  app: string
  session_id: string
  agent_id: string | null
  agent_type: string | null
  tool_name: string
  summary: string
  status: string
  started_ms: number | null
  ended_ms: number | null
  duration_ms: number | null
  start_event: number | null
  end_event: number | null
  error_type: string | null
  tool_chain: ToolChainJson
}

export interface FacetJson {
  value: string
  count: number
}

export interface SessionFacetJson {
  session_id: string
  app: string
  last_event_ms: number
}

export interface FiltersJson {
  apps: FacetJson[]
  types: FacetJson[]
  tools: FacetJson[]
  sessions: SessionFacetJson[]
}

export interface AgentJson {
  agent_id: string | null
  agent_type: string | null
  started_ms: number
  ended_ms: number | null
  last_event_ms: number
  events: number
  calls: number
  failed_calls: number
  description: string | null
  tool_use_id: string | null
  parent_agent_id: string | null
  requests: number
  tokens: TokensJson | null
  cost_usd: number | null
}

export interface SummaryJson {
  window: WindowJson
  performance: PerformanceJson
  tokens: TokensJson | null
  cost: CostJson | null
  errors: ErrorsJson
  file_operations: FileOperationsJson
  git: GitJson
  memory: MemoryJson
  quality: QualityJson
  sessions: SessionsJson
}

export interface WindowJson {
  name: string
  from_ms: number
  to_ms: number
  step_ms: number
  events: number
}

export interface PerformanceJson {
  calls: number
  execution_ms: QuantilesJson
  throughput_per_min: number
  latency_ms: QuantilesJson
  concurrency_avg: number
  concurrency_max: number | null
  trend_percent: number | null
  history: StepJson[]
  tools: ToolJson[]
}

export interface QuantilesJson {
  avg: number | null
  p50: number | null
  p95: number | null
  p99: number | null
}

export interface StepJson {
  t_ms: number
  events: number
  calls: number
  failed: number
  execution_ms_avg: number | null
  execution_ms_p95: number | null
  file_operations: number
}

export interface ToolJson {
  tool_name: string
  calls: number
  failed: number
  execution_ms: QuantilesJson
}

export interface CostJson {
  total_cost_usd: number | null
  cost_hourly_usd: number | null
  trend_percent: number | null
  requests: number
  unpriced_requests: number
  confidence: ConfidenceCountsJson
  cost_by_confidence: ConfidenceCostsJson
  history: CostStepJson[]
}

export interface CostStepJson {
  t_ms: number
  requests: number
  tokens: number
  cost_usd: number | null
}

export interface ConfidenceCountsJson {
  exact: number
  repaired: number
  lower_bound: number
  estimated: number
  unpriced: number
}

export interface ConfidenceCostsJson {
  exact: number
  repaired: number
  lower_bound: number
  estimated: number
}

export interface CostTotalsJson {
  input_tokens: number
  output_tokens: number
  cache_read_tokens: number
  cache_write_5m_tokens: number
  cache_write_1h_tokens: number
  total_tokens: number
  web_searches: number
  requests: number
  cost_usd: number | null
  confidence: ConfidenceCountsJson
  cost_by_confidence: ConfidenceCostsJson
  first_ms: number | null
  last_ms: number | null
}

/** A key that was not asked for is absent, one that no source told is null. */
export interface CostRowJson extends CostTotalsJson {
  date?: string
  date_from_ms?: number
  date_to_ms?: number
  app?: string | null
  user?: string | null
  model?: string | null
  agent?: string | null
  session_id?: string | null
  label?: string | null
  sureness?: string
}

export interface CostsJson {
  currency: string
  timezone: string
  from_ms: number | null
  to_ms: number | null
  rows: CostRowJson[]
  cut: boolean
  totals: CostTotalsJson
  unpriced: UnpricedModelJson[]
}

export interface UnpricedModelJson {
  model: string
  requests: number
  total_tokens: number
}

export interface CostFrameJson {
  sessions: SessionCostJson[]
  unpriced_models: string[]
  more_sessions: number
}

export interface SessionCostJson {
  session_id: string
  app: string
  cost_usd: number | null
  delta_usd: number
  requests: number
  new_requests: number
  confidence: string
}

export interface ErrorsJson {
  failed: number
  error_rate_percent: number
  status: string
  trend_points: number | null
  by_type: FacetJson[]
}

export interface FileOperationsJson {
  total: number
  per_min: number
  read: number
  write: number
  edit: number
  delete: number
  lines_added: number
  lines_removed: number
}

export interface GitJson {
  operations: number
  commits: number
  insertions: number
  deletions: number
}

export interface MemoryJson {
  compactions: number
  context_size: number | null
  context_utilization: number | null
}

export interface QualityJson {
  success_percent: number | null
  denied_percent: number | null
  denied: number
  interrupted: number
}

export interface SessionsJson {
  seen: number
  active: number
  active_agents: number
  prompts: number
}

/** A frame of `/stream?format=native`. Frames of kinds that this page does not know are ignored. */
export type Frame =
  | { type: 'initial'; data: EventJson[] }
  | { type: 'event'; data: EventJson }
  | { type: 'analytics'; data: SummaryJson }
  | { type: 'cost'; data: CostFrameJson }
  | { type: 'dropped'; data: Json }

/** The body of an error, application/problem+json. */
export interface Problem {
  type: string
  title: string
  status: number
  detail: string
  hint?: string
}
