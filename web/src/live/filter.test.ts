import { describe, expect, it } from 'vitest'
import { event } from '../test/event'
import { type Filter, filterFromQuery, filterToQuery, filterToRequest, hidesEnds, matches, NO_FILTER, SEARCH_MAX_CHARS } from './filter'

const one = event(1, { app: 'Shop', session_id: 's1', agent_id: 'a1', type: 'PreToolUse', tool_name: 'Bash', summary: 'cargo TEST für alle' })
const main = event(2, { app: 'shop', type: 'Stop' })
const with_ = (change: Partial<Filter>): Filter => ({ ...NO_FILTER, ...change })

describe('matches', () => {
  it.each<[Partial<Filter>, boolean]>([
    [{}, true],
    [{ app: 'Shop' }, true],
    [{ app: 'shop' }, false],
    [{ session: 's1' }, true],
    [{ session: 's' }, false],
    [{ agent: 'a1' }, true],
    [{ agent: 'main' }, false],
    [{ type: 'PreToolUse' }, true],
    [{ type: 'PostToolUse' }, false],
    [{ tool: 'Bash' }, true],
    [{ tool: 'Read' }, false],
    [{ q: 'cargo test' }, true],
    [{ q: 'CARGO' }, true],
    [{ q: 'bash' }, true],
    [{ q: 'pretool' }, true],
    [{ q: 'SHOP' }, true],
    [{ q: '%' }, false],
    [{ q: 'absent' }, false],
    [{ app: 'Shop', q: 'absent' }, false],
  ])('%o gives %s', (change, expected) => expect(matches(with_(change), one)).toBe(expected))

  it('folds ASCII only, as the server does', () => expect(matches(with_({ q: 'FÜR' }), one)).toBe(false))
  it('takes an event without an agent for the main agent', () => expect(matches(with_({ agent: 'main' }), main)).toBe(true))
})

describe('the URL', () => {
  it('keeps every filter through a round trip', () => {
    const filter: Filter = { app: 'a b&c', session: 's/1', agent: 'main', type: 'Stop', tool: 'mcp__x__y', q: '100 % "x"' }
    expect(filterFromQuery(filterToQuery(filter))).toEqual(filter)
  })
  it('is bare without filters', () => expect(filterToQuery(NO_FILTER)).toEqual({}))
  it('takes the first of a repeated key, and no null', () => expect(filterFromQuery({ app: ['x', 'y'], tool: null, other: 'z' })).toEqual(with_({ app: 'x' })))
  it('cuts a search that is too long', () => expect(filterFromQuery({ q: 'x'.repeat(1000) }).q).toHaveLength(SEARCH_MAX_CHARS))
})

describe('the request', () => {
  it('sends what is set', () => expect(filterToRequest(with_({ tool: 'Bash', q: 'x' }))).toEqual({ tool: 'Bash', q: 'x' }))
  it('names the main agent by an empty value', () => expect(filterToRequest(with_({ agent: 'main' }))).toEqual({ agent: '' }))
})

it('knows which filters can hide the end of a call', () => {
  expect(hidesEnds(with_({ app: 'x', session: 's', agent: 'a' }))).toBe(false)
  for (const key of ['type', 'tool', 'q'] as const) expect(hidesEnds(with_({ [key]: 'x' }))).toBe(true)
})
