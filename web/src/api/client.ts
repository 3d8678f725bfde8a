// All requests of the page. Same origin, cookie session; every failure becomes an ApiError that a person can read.

import { texts } from '../texts'
import type { AgentJson, CallJson, CostsJson, EventJson, FiltersJson, Page, Problem, SummaryJson } from './types'

/** The longest time a request may take, in milliseconds. */
const REQUEST_LIMIT_MS = 20_000

export class ApiError extends Error {
  readonly problem: Problem

  constructor(problem: Problem) {
    super(problem.detail)
    this.name = 'ApiError'
    this.problem = problem
  }

  get isSignedOut(): boolean {
    return this.problem.status === 401
  }

  /** Whether no answer came at all. */
  get isUnreachable(): boolean {
    return this.problem.status === 0
  }
}

export interface EventQuery {
  app?: string
  session?: string
  agent?: string
  type?: string
  tool?: string
  q?: string
  from?: number
  cursor?: string
  limit: number
}

export interface CostsQuery {
  window?: string
  from?: number
  group_by?: string
  app?: string
  session?: string
}

type Params = Record<string, string | number | boolean | undefined>

export const api = {
  summary: (params: { window: string; app?: string; session?: string }, signal?: AbortSignal) =>
    get<SummaryJson>('/api/v1/summary', params, signal),
  costs: (query: CostsQuery, signal?: AbortSignal) => get<CostsJson>('/api/v1/costs', { ...query }, signal),
  events: (query: EventQuery, signal?: AbortSignal) =>
    get<Page<EventJson>>('/api/v1/events', { ...query, payload: false }, signal),
  event: (id: number, signal?: AbortSignal) => get<EventJson>(`/api/v1/events/${id}`, {}, signal),
  calls: (query: { session: string; tool: string; from: number; to: number; limit: number }) => get<Page<CallJson>>('/api/v1/calls', query),
  filters: (signal?: AbortSignal) => get<FiltersJson>('/api/v1/filters', {}, signal),
  agents: async (session: string, signal?: AbortSignal): Promise<AgentJson[]> => {
    const body = await get<AgentJson[] | Page<AgentJson>>(`/api/v1/sessions/${encodeURIComponent(session)}/agents`, {}, signal)
    return Array.isArray(body) ? body : body.items
  },
  session: (signal?: AbortSignal) => get<{ signed_in: boolean }>('/api/v1/auth/session', {}, signal),
  login: (token: string) => send<unknown>('POST', '/api/v1/auth/login', { token }),
}

export function streamUrl(location: Location): string {
  const scheme = location.protocol === 'https:' ? 'wss' : 'ws'
  return `${scheme}://${location.host}/stream?format=native`
}

function get<T>(path: string, params: Params, signal?: AbortSignal): Promise<T> {
  const search = new URLSearchParams()
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined) search.set(name, String(value))
  }
  const query = search.toString()
  return request<T>(query === '' ? path : `${path}?${query}`, { method: 'GET' }, signal)
}

function send<T>(method: string, path: string, body: object): Promise<T> {
  return request<T>(path, { method, headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) })
}

async function request<T>(path: string, init: RequestInit, signal?: AbortSignal): Promise<T> {
  const limit = AbortSignal.timeout(REQUEST_LIMIT_MS)
  let response: Response
  try {
    response = await fetch(path, { ...init, credentials: 'same-origin', signal: signal ? AbortSignal.any([signal, limit]) : limit })
  } catch (cause) {
    if (signal?.aborted) throw cause
    throw new ApiError({ type: 'about:blank', title: texts.errors.unreachable, status: 0, detail: texts.errors.unreachableDetail, hint: texts.errors.unreachableHint })
  }
  if (!response.ok) throw new ApiError(await readProblem(response))
  if (response.status === 204) return undefined as T
  const text = await response.text()
  try {
    return (text === '' ? undefined : JSON.parse(text)) as T
  } catch {
    throw new ApiError({ type: 'about:blank', title: texts.errors.unreadable, status: response.status, detail: texts.errors.unreadableDetail(path) })
  }
}

async function readProblem(response: Response): Promise<Problem> {
  const fallback: Problem = { type: 'about:blank', title: response.statusText || texts.errors.title, status: response.status, detail: texts.errors.status(response.status) }
  try {
    const body = (await response.json()) as Partial<Problem>
    return {
      type: typeof body.type === 'string' ? body.type : fallback.type,
      title: typeof body.title === 'string' ? body.title : fallback.title,
      status: response.status,
      detail: typeof body.detail === 'string' ? body.detail : fallback.detail,
      ...(typeof body.hint === 'string' ? { hint: body.hint } : {}),
    }
  } catch {
    return fallback
  }
}
