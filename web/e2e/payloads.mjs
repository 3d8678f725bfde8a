// Hook payloads for the tests.

let calls = 0

/** The Pre and Post of a new call. */
export function call(change = {}) {
  calls += 1
  const common = {
    session_id: 'aaaaaaaa-1111-4000-8000-000000000001', transcript_path: '/home/user/.claude/x.jsonl', cwd: '/home/user/greeter', permission_mode: 'default',
    tool_name: 'Bash', tool_input: { command: `echo ${calls}`, description: 'Say it' }, tool_use_id: `toolu_e2e_${calls}`, ...change,
  }
  return {
    pre: { ...common, hook_event_name: 'PreToolUse' },
    post: { ...common, hook_event_name: 'PostToolUse', tool_response: { stdout: String(calls), stderr: '', interrupted: false }, duration_ms: 1234 },
    failure: { ...common, hook_event_name: 'PostToolUseFailure', error: 'Exit code 2\nls: cannot access: No such file or directory', is_interrupt: false, duration_ms: 56 },
  }
}

export const notification = (message, change = {}) => ({ session_id: 'aaaaaaaa-1111-4000-8000-000000000001', cwd: '/home/user/greeter', hook_event_name: 'Notification', message, ...change })

/** Two apps, two sessions, a subagent, tools and types: something for each filter to leave out. */
export function fleet() {
  const second = { session_id: 'bbbbbbbb-2222-4000-8000-000000000002', cwd: '/home/user/stats' }
  const sub = { agent_id: 'agent-7f3a', agent_type: 'Explore' }
  const list = []
  const both = (made, failed = false) => list.push(made.pre, failed ? made.failure : made.post)
  both(call())
  both(call({ tool_name: 'Read', tool_input: { file_path: '/home/user/greeter/needle.txt' } }))
  both(call({ ...second }), true)
  both(call({ ...second, tool_name: 'Edit', tool_input: { file_path: '/home/user/stats/mean.py', old_string: 'a', new_string: 'b' } }))
  both(call({ ...sub, tool_name: 'Grep', tool_input: { pattern: 'needle' } }))
  list.push(notification('Claude is waiting for your input', second))
  return list
}

let requests = 0

/** An API request as the client's transcript tells it, one line. Its cost is for the server to find. */
export function responseLine({ session_id, model, cwd = '/home/user/greeter', input = 10, output = 50, cache_read = 0, cache_write_5m = 14_000 }, at = Date.now()) {
  requests += 1
  const usage = { input_tokens: input, output_tokens: output, cache_read_input_tokens: cache_read, cache_creation_input_tokens: cache_write_5m, cache_creation: { ephemeral_5m_input_tokens: cache_write_5m, ephemeral_1h_input_tokens: 0 } }
  const message = { id: `msg_e2e_${at}_${requests}`, type: 'message', role: 'assistant', model, content: [{ type: 'text', text: 'done' }], stop_reason: 'end_turn', usage }
  return `${JSON.stringify({ type: 'assistant', uuid: `e2e-${at}-${requests}`, sessionId: session_id, cwd, version: '2.1.330', timestamp: new Date(at).toISOString(), requestId: `req_e2e_${at}_${requests}`, message })}\n`
}
