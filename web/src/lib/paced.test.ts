import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { paced } from './paced'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

it('works at once, then once for all that was asked meanwhile', async () => {
  const work = vi.fn(() => Promise.resolve())
  const ask = paced(work, 500)
  ask()
  expect(work).toHaveBeenCalledTimes(1)
  for (let i = 0; i < 20; i += 1) ask()
  await vi.advanceTimersByTimeAsync(499)
  expect(work).toHaveBeenCalledTimes(1)
  await vi.advanceTimersByTimeAsync(1)
  expect(work).toHaveBeenCalledTimes(2)
  await vi.advanceTimersByTimeAsync(5_000)
  expect(work).toHaveBeenCalledTimes(2)
  ask()
  expect(work).toHaveBeenCalledTimes(3)
})

it('begins anew after work that was under way when it was asked', async () => {
  const begun: (() => void)[] = []
  const ask = paced(() => new Promise<void>((resolve) => begun.push(resolve)), 10)
  ask()
  await vi.advanceTimersByTimeAsync(1_000)
  ask()
  expect(begun).toHaveLength(1)
  begun[0]?.()
  await vi.advanceTimersByTimeAsync(10)
  expect(begun).toHaveLength(2)
})

it('outlives failures, and stops', async () => {
  const work = vi.fn(() => Promise.reject(new Error('away')))
  const ask = paced(work, 10)
  ask()
  ask()
  await vi.advanceTimersByTimeAsync(10)
  expect(work).toHaveBeenCalledTimes(2)
  ask()
  ask.stop()
  await vi.advanceTimersByTimeAsync(100)
  ask()
  expect(work).toHaveBeenCalledTimes(2)
})
