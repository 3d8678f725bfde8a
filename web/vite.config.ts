// The build of the page. `npm run dev` proxies the API to the server named by TAFFRAIL_URL (or the mock's default port).
import tailwindcss from '@tailwindcss/vite'
import vue from '@vitejs/plugin-vue'
import { defineConfig } from 'vitest/config'

const target = process.env.TAFFRAIL_URL ?? 'http://127.0.0.1:4010'

export default defineConfig({
  plugins: [vue(), tailwindcss()],
  build: {
    target: ['chrome111', 'firefox114', 'safari16.4'],
    // The server's Content-Security-Policy allows only files of its own: nothing may be inlined as data:.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: {
    host: '127.0.0.1',
    proxy: {
      '/api': target,
      '/auth': target,
      '/stream': { target, ws: true },
    },
  },
  test: {
    environment: 'happy-dom',
    include: ['src/**/*.test.ts'],
    restoreMocks: true,
  },
})
