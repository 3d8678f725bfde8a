// Numbers, sizes, durations and times for people. Times are shown in the viewer's zone. All pure.

const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })
const compactNumber = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 })

/** What stands where no source has told a figure. */
export const NOTHING = '–'

export function integer(value: number | null | undefined): string {
  return value == null ? NOTHING : grouped.format(value)
}

/** 1234 as `1,234`, 12345 and up as `12.3K`. */
export function count(value: number | null | undefined): string {
  if (value == null) return NOTHING
  return Math.abs(value) < 10_000 ? grouped.format(value) : compactNumber.format(value)
}

export function decimal(value: number | null | undefined, digits = 1): string {
  return value == null ? NOTHING : value.toFixed(digits)
}

/** A share already in percent: `0 %`, `0.42 %`, `12.5 %`, `100 %`. */
export function percent(value: number | null | undefined): string {
  if (value == null) return NOTHING
  const digits = value === 0 || value === 100 ? 0 : Math.abs(value) < 1 ? 2 : 1
  return `${value.toFixed(digits)} %`
}

/** A change with its sign, a real minus included. */
export function signed(value: number, digits = 1): string {
  const text = Math.abs(value).toFixed(digits)
  if (Number(text) === 0) return `±${text}`
  return value > 0 ? `+${text}` : `−${text}`
}

/** Three significant digits at most: `0 ms`, `12 ms`, `1.23 s`, `2 m 05 s`, `3 h 04 m`, `2 d 03 h`. */
export function duration(ms: number | null | undefined): string {
  if (ms == null) return NOTHING
  if (ms < 0) return `−${duration(-ms)}`
  if (ms > 0 && ms < 1) return '<1 ms'
  if (ms < 999.5) return `${Math.round(ms)} ms`
  if (ms < 9_995) return `${(ms / 1000).toFixed(2)} s`
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`
  const seconds = Math.round(ms / 1000)
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} m ${pad(seconds % 60)} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 1_440) return `${Math.floor(minutes / 60)} h ${pad(minutes % 60)} m`
  const hours = Math.floor(minutes / 60)
  return `${Math.floor(hours / 24)} d ${pad(hours % 24)} h`
}

/** How long something runs so far, in whole seconds: `0 s`, `42 s`, then as `duration`. */
export function elapsed(ms: number): string {
  const seconds = Math.floor(Math.max(0, ms) / 1000)
  return seconds < 60 ? `${seconds} s` : duration(seconds * 1000)
}

const SIZE_UNITS = ['B', 'KB', 'MB', 'GB', 'TB'] as const

/** Decimal units (1 KB = 1000 B). */
export function bytes(value: number | null | undefined): string {
  if (value == null) return NOTHING
  let size = value
  let unit = 0
  while (size >= 999.5 && unit < SIZE_UNITS.length - 1) {
    size /= 1000
    unit += 1
  }
  const digits = unit === 0 || size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2
  return `${size.toFixed(digits)} ${SIZE_UNITS[unit]}`
}

export function usd(value: number | null | undefined): string {
  if (value == null) return NOTHING
  return `$${value.toFixed(value !== 0 && Math.abs(value) < 0.1 ? 4 : 2)}`
}

/** `14:03:07.042`, with the day before it where it is not today. */
export function clock(ms: number, now: number): string {
  const at = new Date(ms)
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`
  return isSameDay(at, new Date(now)) ? time : `${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${time.slice(0, 8)}`
}

/** `2026-11-22 14:03:07.042 +01:00`, for titles and details. */
export function fullTime(ms: number): string {
  const at = new Date(ms)
  const offset = -at.getTimezoneOffset()
  const sign = offset < 0 ? '−' : '+'
  const zone = `${sign}${pad(Math.floor(Math.abs(offset) / 60))}:${pad(Math.abs(offset) % 60)}`
  const day = `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())}`
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}.${String(at.getMilliseconds()).padStart(3, '0')}`
  return `${day} ${time} ${zone}`
}

/** The first eight characters: enough to tell sessions apart by eye. */
export function shortId(id: string): string {
  return id.length > 12 ? id.slice(0, 8) : id
}

/** A stable number from 0 to `buckets` - 1 for a text (FNV-1a), to give a session its colour. */
export function bucketOf(text: string, buckets: number): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i += 1) {
    hash ^= text.charCodeAt(i)
    hash = Math.imul(hash, 0x01000193)
  }
  return (hash >>> 0) % buckets
}

function isSameDay(a: Date, b: Date): boolean {
  return a.getFullYear() === b.getFullYear() && a.getMonth() === b.getMonth() && a.getDate() === b.getDate()
}

function pad(value: number): string {
  return String(value).padStart(2, '0')
}
