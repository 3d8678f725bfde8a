// What the Overview shows of: window, app and session, read from and written to the URL.

export const WINDOWS = ['1m', '5m', '15m', '1h', '6h', '24h', '7d', '30d'] as const
export type WindowName = (typeof WINDOWS)[number]

export const DEFAULT_WINDOW: WindowName = '1h'

export interface OverviewQuery {
  readonly window: WindowName
  readonly app: string
  readonly session: string
}

type QueryValue = string | null | undefined | (string | null)[]

export function overviewFromQuery(query: Readonly<Record<string, QueryValue>>): OverviewQuery {
  const name = first(query.window)
  return { window: WINDOWS.find((known) => known === name) ?? DEFAULT_WINDOW, app: first(query.app), session: first(query.session) }
}

export function overviewToQuery(query: OverviewQuery): Record<string, string> {
  return {
    ...(query.window === DEFAULT_WINDOW ? {} : { window: query.window }),
    ...(query.app === '' ? {} : { app: query.app }),
    ...(query.session === '' ? {} : { session: query.session }),
  }
}

/** How often the figures are read again, in milliseconds: long windows change slowly. */
export function refreshEveryMs(window: WindowName): number {
  return window === '7d' || window === '30d' || window === '24h' ? 15_000 : 5_000
}

function first(value: QueryValue): string {
  return (Array.isArray(value) ? value[0] : value) ?? ''
}
