// Receives webhooks signed by Standard Webhooks, with HttpListener and no packages.

using System;
using System.Collections.Generic;
using System.IO;
using System.Net;
using System.Text;
using System.Threading;
using System.Threading.Tasks;

public static class Program
{
    private const int MaxBodyBytes = 2 * 1024 * 1024;
    private static readonly TimeSpan ReadTime = TimeSpan.FromSeconds(10);

    /// <summary>Your work goes here.</summary>
    private static void Handle(Event one)
    {
        Console.Error.WriteLine("processed " + one.Id);
    }

    /// <summary>The raw body; null when it is larger than allowed.</summary>
    /// <exception cref="TimeoutException">It did not come in time.</exception>
    private static async Task<byte[]> Body(HttpListenerRequest request)
    {
        if (request.ContentLength64 > MaxBodyBytes) return null;
        Task timeout = Task.Delay(ReadTime);
        var body = new MemoryStream();
        var part = new byte[65536];
        while (request.HasEntityBody)
        {
            Task<int> read = request.InputStream.ReadAsync(part, 0, part.Length);
            if (await Task.WhenAny(read, timeout) == timeout) throw new TimeoutException();
            if (await read == 0) break;
            body.Write(part, 0, await read);
            if (body.Length > MaxBodyBytes) return null;
        }
        return body.ToArray();
    }

    private static async Task Receive(HttpListenerContext context, Verifier verifier, Inbox inbox)
    {
        byte[] body;
        try
        {
            body = await Body(context.Request);
        }
        catch (TimeoutException)
        {
            context.Response.KeepAlive = false;
            Answer(context, 408, "body too slow");
            return;
        }
        if (body == null)
        {
            context.Response.KeepAlive = false;
            Answer(context, 413, "body too large");
            return;
        }
        List<Event> events;
        try
        {
            string id = verifier.Verify(name => context.Request.Headers[name], body, DateTimeOffset.UtcNow);
            events = Json.Events(id, body);
        }
        catch (RefusedException refused)
        {
            Console.Error.WriteLine("refused: " + refused.Message);
            Answer(context, 401, "invalid signature");
            return;
        }
        catch (FormatException)
        {
            Answer(context, 400, "not a JSON event, nor an array of events with ids");
            return;
        }
        if (!events.TrueForAll(inbox.Take))
        {
            context.Response.AddHeader("Retry-After", "5");
            Answer(context, 503, "busy");
            return;
        }
        Answer(context, 202, "");
    }

    private static void Answer(HttpListenerContext context, int status, string text)
    {
        Answer(context, status, Encoding.UTF8.GetBytes(text));
    }

    private static void Answer(HttpListenerContext context, int status, byte[] content)
    {
        context.Response.StatusCode = status;
        context.Response.ContentLength64 = content.Length;
        context.Response.OutputStream.Write(content, 0, content.Length);
        context.Response.Close();
    }

    private static async Task Serve(HttpListenerContext context, Verifier verifier, Inbox inbox)
    {
        try
        {
            switch (context.Request.HttpMethod + " " + context.Request.Url.AbsolutePath)
            {
                case "POST /webhooks": await Receive(context, verifier, inbox); break;
                case "GET /processed": Answer(context, 200, Json.Processed(inbox.Processed())); break;
                case "GET /healthz": Answer(context, 200, "ok"); break;
                default: Answer(context, 404, "not found"); break;
            }
        }
        catch (Exception error)
        {
            Console.Error.WriteLine("error: " + error);
            context.Response.StatusCode = 500; // Mono's Abort alone would answer 200
            context.Response.Abort();
        }
    }

    public static int Main()
    {
        Verifier verifier;
        try
        {
            verifier = new Verifier(Environment.GetEnvironmentVariable("WEBHOOK_SECRET") ?? "");
        }
        catch (FormatException error)
        {
            Console.Error.WriteLine("WEBHOOK_SECRET: " + error.Message + ", as the sender gave it to you");
            return 1;
        }
        var inbox = new Inbox(Handle);
        new Thread(inbox.Work) { IsBackground = true }.Start();
        string port = Environment.GetEnvironmentVariable("PORT") ?? "8000";
        var listener = new HttpListener();
        listener.Prefixes.Add("http://127.0.0.1:" + port + "/");
        listener.Start();
        Console.Error.WriteLine("listening on 127.0.0.1:" + port);
        while (true)
        {
            HttpListenerContext context = listener.GetContext();
            Task.Run(() => Serve(context, verifier, inbox));
        }
    }
}
