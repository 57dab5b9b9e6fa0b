// `oms dashboard` hands the token over behind the #, which browsers send to nobody. It goes out of the address bar and the
// history at once, and to the gateway in the form.
"use strict";

function signIn() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  const form = document.getElementById("sign-in");
  form.elements.token.value = token;
  form.requestSubmit();
}

addEventListener("hashchange", signIn);
signIn();
