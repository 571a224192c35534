// @ts-check
/** The REST API. Every refusal is an Error whose message is the server's one line. */

/** An answer that was no success. */
export class ApiError extends Error {
  /** @param {number} status 0 when the server did not answer @param {string} line */
  constructor(status, line) {
    super(line);
    this.name = "ApiError";
    this.status = status;
  }
}

/** Calls to the server this page came from; 401 leads to the login page. */
export class Api {
  /** @param {string} path as in "/api/campaigns?limit=10" @param {AbortSignal} [signal] @returns {Promise<any>} */
  get(path, signal) {
    return this.call("GET", path, undefined, signal);
  }

  /** @param {string} path @param {unknown} [body] @returns {Promise<any>} */
  post(path, body) {
    return this.call("POST", path, body);
  }

  /** @param {string} path @param {unknown} body @returns {Promise<any>} */
  patch(path, body) {
    return this.call("PATCH", path, body);
  }

  /** @param {string} path @returns {Promise<any>} null */
  delete(path) {
    return this.call("DELETE", path);
  }

  /**
   * @param {string} method @param {string} path @param {unknown} [body] @param {AbortSignal} [signal]
   * @returns {Promise<any>} the decoded answer, null when there is none
   */
  async call(method, path, body, signal) {
    /** @type {RequestInit} */
    const options = { method, signal, headers: { Accept: "application/json" } };
    if (body !== undefined) {
      options.body = JSON.stringify(body);
      options.headers = { Accept: "application/json", "Content-Type": "application/json" };
    }
    let response;
    try {
      response = await fetch(path, options);
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError(0, "the server does not answer");
    }
    if (response.status === 401) {
      location.assign("/login");
      throw new ApiError(401, "log in again");
    }
    const text = await response.text();
    const value = text ? decoded(text) : null;
    if (!response.ok) throw new ApiError(response.status, value?.error ?? `the server answered ${response.status}`);
    return value;
  }
}

/** @param {string} text */
function decoded(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
