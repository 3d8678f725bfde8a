// Starts the page.

import { QueryCache, QueryClient, VueQueryPlugin } from '@tanstack/vue-query'
import { createPinia } from 'pinia'
import { createApp } from 'vue'
import { ApiError } from './api/client'
import App from './App.vue'
import { router } from './router'
import { useConnection } from './stream/connection'
import './style.css'

const pinia = createPinia()

const queryClient = new QueryClient({
  queryCache: new QueryCache({
    // A session can end while the page is open; any request then tells.
    onError: (error) => {
      if (error instanceof ApiError && error.isSignedOut) useConnection(pinia).noteSignedOut()
    },
  }),
  defaultOptions: {
    queries: {
      // A view shows its error at once and offers to try again; only an unreachable server is tried once more.
      retry: (failures, error) => failures < 1 && error instanceof ApiError && error.isUnreachable,
      networkMode: 'always',
      refetchOnWindowFocus: true,
      staleTime: 2_000,
    },
  },
})

createApp(App).use(pinia).use(router).use(VueQueryPlugin, { queryClient }).mount('#app')
