// What the Live page is narrowed to: read from and written to the URL, sent to the server, and applied to live frames.
//
// `matches` means the same as the server's events filter: equal fields, and free text as a piece of summary, type, tool or
// app in any case (ASCII letters only, as SQLite's LIKE folds them).

import type { EventQuery } from '../api/client'
import type { EventJson } from '../api/types'

export const FILTER_KEYS = ['app', 'session', 'agent', 'type', 'tool', 'q'] as const
export type FilterKey = (typeof FILTER_KEYS)[number]
export type Filter = Readonly<Record<FilterKey, string>>

export const NO_FILTER: Filter = { app: '', session: '', agent: '', type: '', tool: '', q: '' }

/** The longest text that is searched for, in characters. */
export const SEARCH_MAX_CHARS = 200

/** The value of `agent` in the URL that means the session's main agent. */
export const MAIN_AGENT = 'main'

type QueryValue = string | null | undefined | (string | null)[]

/** Unknown keys are left alone; of a repeated key the first counts. */
export function filterFromQuery(query: Readonly<Record<string, QueryValue>>): Filter {
  const filter: Record<FilterKey, string> = { ...NO_FILTER }
  for (const key of FILTER_KEYS) {
    const raw = query[key]
    const value = Array.isArray(raw) ? raw[0] : raw
    if (typeof value === 'string') filter[key] = key === 'q' ? value.slice(0, SEARCH_MAX_CHARS) : value
  }
  return filter
}

/** Only what is set, so that an unfiltered page has a bare URL. */
export function filterToQuery(filter: Filter): Record<string, string> {
  const query: Record<string, string> = {}
  for (const key of FILTER_KEYS) if (filter[key] !== '') query[key] = filter[key]
  return query
}

export function filterToRequest(filter: Filter): Omit<EventQuery, 'limit'> {
  const query: Omit<EventQuery, 'limit'> = {}
  for (const key of FILTER_KEYS) if (filter[key] !== '') query[key] = filter[key]
  // The server names the main agent by an empty value.
  if (filter.agent === MAIN_AGENT) query.agent = ''
  return query
}

export function isFiltered(filter: Filter): boolean {
  return FILTER_KEYS.some((key) => filter[key] !== '')
}

export function sameFilter(a: Filter, b: Filter): boolean {
  return FILTER_KEYS.every((key) => a[key] === b[key])
}

export function matches(filter: Filter, event: EventJson): boolean {
  return (
    (filter.app === '' || event.app === filter.app) &&
    (filter.session === '' || event.session_id === filter.session) &&
    (filter.agent === '' || (filter.agent === MAIN_AGENT ? event.agent_id === undefined : event.agent_id === filter.agent)) &&
    (filter.type === '' || event.type === filter.type) &&
    (filter.tool === '' || event.tool_name === filter.tool) &&
    (filter.q === '' || containsText(event, foldAscii(filter.q)))
  )
}

function containsText(event: EventJson, folded: string): boolean {
  return [event.summary, event.type, event.tool_name ?? '', event.app].some((text) => foldAscii(text).includes(folded))
}

function foldAscii(text: string): string {
  return text.replace(/[A-Z]+/g, (letters) => letters.toLowerCase())
}

/** Whether the end of a call may be outside of what the filter lets through, so that "no end" proves nothing. */
export function hidesEnds(filter: Filter): boolean {
  return filter.type !== '' || filter.tool !== '' || filter.q !== ''
}
