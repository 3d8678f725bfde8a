// Made-up events for the unit tests.

import type { EventJson } from '../api/types'

/** Ids grow with time as on the server: 4096 per millisecond. */
export function event(ms: number, change: Partial<EventJson> = {}): EventJson {
  return {
    id: ms * 4096,
    event_id: `event-${ms}`,
    ts_ms: ms,
    received_ms: ms,
    source: 'hook',
    app: 'app',
    session_id: 's1',
    type: 'Notification',
    summary: '',
    metrics: { execution_time_ms: null, token_usage: null, memory_usage: null, output_bytes: null, hook_wall_us: null },
    file_operations: [],
    warnings: [],
    issues: [],
    payload_bytes: 2,
    payload_truncated: false,
    redactions: 0,
    ...change,
  }
}

/** A PreToolUse of the call `id`. */
export function pre(ms: number, id: string | null, change: Partial<EventJson> = {}): EventJson {
  return event(ms, { type: 'PreToolUse', tool_name: 'Bash', ...(id === null ? {} : { tool_use_id: id }), ...change })
}

/** A PostToolUse of the call `id`, of the duration that the client tells. */
export function post(ms: number, id: string | null, duration: number | null = null, change: Partial<EventJson> = {}): EventJson {
  const plain = pre(ms, id)
  return { ...plain, type: 'PostToolUse', metrics: { ...plain.metrics, execution_time_ms: duration }, ...change }
}

/** Every order of a short list. */
export function orders<T>(list: readonly T[]): T[][] {
  if (list.length <= 1) return [[...list]]
  return list.flatMap((first, i) => orders([...list.slice(0, i), ...list.slice(i + 1)]).map((rest) => [first, ...rest]))
}
